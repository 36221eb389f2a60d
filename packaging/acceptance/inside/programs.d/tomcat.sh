# Tomcat with a page of its own, from Debian, on a port.
# shellcheck shell=bash
PACKAGES=(tomcat10)

fetch() {
    worker java <<'YAML'
type: exec
listen: port
command: [bin/tomcat]
env: {JAVA_OPTS: "-Xmx128m"}
health: {path: /java/, start_timeout_seconds: 90}
YAML
    mkdir -p bin conf webapps/java
    cp -rL /etc/tomcat10/. conf/
    rm -rf conf/policy.d conf/Catalina
    sed -i 's/<Server port="[^"]*"/<Server port="-1"/; s/<Connector port="8080"/<Connector address="127.0.0.1" port="${port}"/' conf/server.xml
    cat >bin/tomcat <<'SH'
#!/bin/sh
# What Tomcat writes is kept apart from what it is. Two generations run for a moment, each with its own.
export CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE="$(mktemp -d)"
cp -r conf webapps "$CATALINA_BASE"
mkdir "$CATALINA_BASE/logs" "$CATALINA_BASE/temp" "$CATALINA_BASE/work"
CATALINA_OPTS="-Dport=$PORT" exec "$CATALINA_HOME/bin/catalina.sh" run
SH
    chmod +x bin/tomcat
    echo '<%= "six times seven is " + 6 * 7 %>' >webapps/java/index.jsp
}

prove() {
    start java
    has "$(get /java/)" 'six times seven is 42'
    DONE='a page is compiled and served'
    reloads java /java/ 'is 42'
}
