//! A disk that does not respond.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::house::worker::says;
use crate::house::{House, until};
use crate::untested::not_tested;

const MANAGER: &str = "tqserver.service";

/// A file system of its own, on a loop device.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one on `directory`; `None`: only root can, and not everywhere.
    fn mount(directory: &Path) -> Option<Self> {
        let image = directory.with_extension("img");
        let file = std::fs::File::create(&image).expect("make an image");
        file.set_len(64 << 20).expect("make an image");
        std::fs::create_dir_all(directory).expect("make a directory");
        let ready = runs(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && runs(
                Command::new("mount")
                    .args(["-o", "loop"])
                    .arg(&image)
                    .arg(directory),
            );
        if !ready {
            not_tested(
                "no file system can be mounted on a loop device",
                "run it as root, where there are loop devices and mkfs.ext4",
            );
        }
        ready.then(|| Self(directory.to_owned()))
    }

    /// Whoever writes to it from now on waits, and cannot be killed.
    fn freeze(&self) -> Frozen<'_> {
        assert!(runs(Command::new("fsfreeze").arg("-f").arg(&self.0)));
        // Should this process be killed, nothing stays frozen.
        let thaw = format!("sleep 100; fsfreeze -u '{}'", self.0.display());
        let lifeline = Command::new("sh")
            .args(["-c", &thaw])
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        Frozen(self, lifeline.expect("start sh"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        runs(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

struct Frozen<'a>(&'a Disk, std::process::Child);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        runs(Command::new("fsfreeze").arg("-u").arg(&self.0.0));
        if let Some(group) = rustix::process::Pid::from_raw(self.1.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.1.wait();
    }
}

use std::os::unix::process::CommandExt;

fn runs(command: &mut Command) -> bool {
    let ran = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

#[test]
fn a_disk_that_does_not_respond_holds_up_neither_the_manager_nor_its_end() {
    let house = House::new().worker("index", says("one")).production();
    let Some(disk) = Disk::mount(&house.path().join("state")) else {
        return;
    };
    let house = house.planes().open();
    house.replace("index", says("two"));
    let frozen = disk.freeze();
    // What would be written is refused in time, and all goes on as before.
    let began = Instant::now();
    let maintenance = house.run(["maintenance", "index"]);
    maintenance
        .exits(1)
        .fails_with("no response from the file system");
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    house.run(["status"]).succeeds().says("serving");
    house.run(["pause", "index"]).succeeds();
    house.run(["resume", "index"]).succeeds();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    house.get("/").is("one");
    // It ends though a thread of its own waits for the disk.
    house.systemctl(["stop", "--no-block", MANAGER]).succeeds();
    until("it has ended", || {
        let log = std::fs::read_to_string(house.path().join("manager.log"));
        log.unwrap_or_default().contains("the manager ends")
    });
    until("another could take its place", || {
        house.try_status().is_none()
    });
    drop(frozen);
    until("it is gone", || {
        house.property(MANAGER, "ActiveState") == "inactive"
    });
    // What was refused was not done later.
    house.systemctl(["start", MANAGER]).succeeds();
    house
        .systemctl(["start", "tqserver-proxy.service"])
        .succeeds();
    until("it is back", || house.try_status().is_some());
    assert!(!house.status("index").in_maintenance);
}
