# Makes /etc/tqserver/server.yaml of config/server.yaml, so that the two can not drift apart: sed -f packaging/server-yaml.sed config/server.yaml
s|^# TQServer's configuration\. .*|# TQServer's configuration, see tqserver.yaml(5). Every key is optional; but for workers.directory, the values here are the defaults.|
s|^# Check an edit with 'tqserver check'\. .*|# Check an edit with 'tqserver check --config /etc/tqserver/server.yaml', and take it over with 'systemctl reload tqserver'.\
# Secrets of workers do not belong here, but into /etc/tqserver/credentials/WORKER/NAME, or NAME.cred when encrypted by\
# systemd-creds(1); a worker names those it wants under 'credentials' in its config/worker.yaml.|
s|^    directory: "workers"$|    # Packages put theirs into the last.\
    directory: ["/srv/tqserver/workers", "/usr/lib/tqserver/workers"]|
s|"logs/{path}/worker_{date}\.log"|"/var/log/tqserver/{name}_{date}.log"|
