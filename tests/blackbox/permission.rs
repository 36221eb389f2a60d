//! Who is not let by the machine's bus, under the policy that is shipped: a bus of the test's own, and a user who is nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};

use tempfile::TempDir;
use zbus::Connection;
use zbus::connection::Builder;

use crate::house::process::{Ran, tqserver};
use crate::house::until;
use crate::untested::not_tested;

/// The user and group `nobody` and `nogroup`.
const NOBODY: u32 = 65534;
const NAME: &str = "org.tqserver.Manager1";

/// As /usr/share/dbus-1/system.conf has it.
const SYSTEM: &str = r#"
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
"#;

/// A bus with the shipped policy, on which the manager's name has an owner.
struct Bus {
    directory: TempDir,
    daemon: Child,
    _runtime: tokio::runtime::Runtime,
    _manager: Connection,
}

impl Bus {
    fn start() -> Self {
        // Where anybody may look: the checkout may be in a home that nobody else sees.
        let directory = TempDir::with_prefix("tqserver-bus-").expect("make a directory");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), open).expect("open the directory");
        let program = env!("CARGO_BIN_EXE_tqserver");
        fs::copy(program, directory.path().join("tqserver")).expect("copy the program");
        let place = directory.path().display();
        let policy = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/packaging/dbus-1/org.tqserver.Manager1.conf"
        );
        let config = format!(
            "<busconfig><listen>unix:path={place}/bus</listen><auth>EXTERNAL</auth>{SYSTEM}<include>{policy}</include></busconfig>"
        );
        let file = directory.path().join("bus.conf");
        fs::write(&file, config).expect("write the bus's configuration");
        let mut command = Command::new("dbus-daemon");
        command.arg("--nofork").arg("--config-file").arg(&file);
        let daemon = command.spawn().expect("run dbus-daemon");
        let socket = directory.path().join("bus");
        until("the bus is there", || socket.exists());
        let runtime = tokio::runtime::Runtime::new().expect("make a runtime");
        let address = format!("unix:path={}", socket.display());
        let manager = runtime.block_on(async {
            let builder = Builder::address(address.as_str()).name(NAME);
            builder.build().await.expect("take the manager's name")
        });
        Self {
            directory,
            daemon,
            _runtime: runtime,
            _manager: manager,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `tqserver` as nobody.
    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        let ours = tqserver([]);
        let mut command = Command::new(self.file("tqserver"));
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let address = format!("unix:path={}", self.file("bus").display());
        command
            .args(arguments)
            .arg("--manager=system")
            .current_dir(self.directory.path())
            .env("DBUS_SYSTEM_BUS_ADDRESS", address)
            .uid(NOBODY)
            .gid(NOBODY);
        Ran::of(&mut command)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn whoever_may_not_see_the_status_is_told_who_may() {
    if !rustix::process::geteuid().is_root() {
        not_tested("only root can be somebody else", "run it as root");
        return;
    }
    let bus = Bus::start();
    for verb in [&["status"][..], &["status", "index"], &["status", "--json"]] {
        bus.run(verb.iter().copied())
            .exits(77)
            .says("permission denied: only root and members of the group tqserver-admin may see what runs")
            .says("`sudo adduser $USER tqserver-admin`, and log in again")
            .says_nothing_of("AccessDenied");
    }
}
