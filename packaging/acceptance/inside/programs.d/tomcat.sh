# Tomcat with a page of its own, from Debian, on a port.
# shellcheck shell=bash
# Read by `program`.
# shellcheck disable=SC2034
PACKAGES=(tomcat10)

fetch() {
    how_to ports yaml 3 | worker java
    cd "$SRV/java" || return
    mkdir -p bin conf webapps/java
    cp -rL /etc/tomcat10/. conf/
    rm -rf conf/policy.d conf/Catalina
    # The value is Tomcat's to fill in.
    # shellcheck disable=SC2016
    sed -i 's/<Server port="[^"]*"/<Server port="-1"/; s/<Connector port="8080"/<Connector address="127.0.0.1" port="${port}"/' conf/server.xml
    how_to ports sh 1 >bin/tomcat
    chmod +x bin/tomcat
    echo '<%= "six times seven is " + 6 * 7 %>' >webapps/java/index.jsp
}

prove() {
    start java
    has "$(get /java/)" 'six times seven is 42'
    DONE='a page is compiled and served'
    reloads java /java/ 'is 42'
}
