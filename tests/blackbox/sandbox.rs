//! The walls around a worker, as far as they can be tried where no systemd was booted: that systemd takes what it is told.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use tqserver::config::{Limits, Mode, Network};
use tqserver::limits::ByteSize;
use tqserver::names::{Generation, Instance, WorkerName};
use tqserver::route::{Address, RoutePath};
use tqserver::systemd::{Credential, Place, Sandbox, Systemd, UnitPair};

use crate::house::House;
use crate::house::process::{Ran, tqserver};
use crate::house::worker::says;

const SECOND: Duration = Duration::from_secs(1);

/// `tqserver check` for the machine's systemd, whether it was booted or not.
fn check(house: &House) -> Command {
    let mut check = tqserver(["check", "--manager=system", "--config"]);
    check.arg(house.config());
    check
}

/// A generation with everything that can be asked for; nobody connects to it, so nothing of it runs.
fn pair(house: &House, network: Network, jit: bool, number: u64) -> UnitPair {
    let instance = Instance::new(WorkerName::parse("walls").unwrap(), Generation(number));
    let secret = |name: &str, encrypted| Credential {
        name: name.to_owned(),
        path: house.path().join(name),
        encrypted,
    };
    UnitPair {
        number: 1,
        route: RoutePath::root(),
        mode: Mode::Production,
        address: Address::Unix(house.path().join(instance.file_name("sock"))),
        socket_group: None,
        directory: house.path().join("snapshots/walls/1"),
        data: house.path().to_owned(),
        cache: None,
        stored: vec!["media".to_owned(), "site/up-loads".to_owned()],
        persisted: vec!["site".to_owned()],
        command: vec!["/bin/true".to_owned()],
        starter: env!("CARGO_BIN_EXE_tqserver").into(),
        env: BTreeMap::new(),
        limits: Limits {
            gomemlimit: Some(ByteSize(64 << 20)),
            memory_high: Some(ByteSize(50 << 20)),
            state_max: None,
            cpu_weight: Some(50),
            instances: 1,
            io_weight: Some(60),
            tasks_max: Some(40),
            ..Limits::default()
        },
        sandbox: Some(Sandbox {
            user: "tqw-api_a-b".to_owned(),
            network,
            jit,
            kernel: Vec::new(),
            ports: 9000..=9999,
            cache: true,
            snapshots: house.path().join("snapshots"),
            hidden: vec![house.path().join("config")],
        }),
        credentials: vec![secret("plain", false), secret("sealed", true)],
        secret_env: BTreeMap::new(),
        written: None,
        stop_signal: None,
        accepted: true,
        output: None,
        stop_timeout: SECOND,
        record: "{}".to_owned(),
        instance,
    }
}

/// Does something by the house's systemd.
fn with_systemd(house: &House, work: impl AsyncFnOnce(&Systemd)) {
    let bus = Place::of(&house.config()).bus_address();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (systemd, _changes) = Systemd::connect(&bus).await.unwrap();
        work(&systemd).await;
    });
}

/// A generation that another version of the server made: the walls are left out, and so is what the manager would know it by.
pub(crate) fn start_stranger(house: &House, worker: &str, number: u64) {
    let instance = Instance::new(WorkerName::parse(worker).unwrap(), Generation(number));
    let stranger = UnitPair {
        address: Address::Unix(house.path().join(instance.file_name("sock"))),
        instance,
        directory: house.path().to_owned(),
        sandbox: None,
        credentials: Vec::new(),
        written: None,
        stop_signal: None,
        ..pair(house, Network::Full, false, 1)
    };
    with_systemd(house, async |systemd| {
        systemd.start_pair(&stranger).await.unwrap();
    });
}

#[test]
fn a_check_tells_how_much_of_the_machine_a_worker_reaches() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("api/users", says("two"));
    Ran::of(&mut check(&house))
        .succeeds()
        .says("index: exposure 1.")
        .says("api.users: exposure 1.");
    // What a private systemd can not give is not counted as if it could.
    house.run(["check"]).succeeds().says_nothing_of("exposure");
}

#[test]
fn a_check_fails_for_a_worker_that_reaches_more_than_is_allowed() {
    let house = House::new()
        .worker("index", says("one"))
        .worker("lonely", says("two").config("network: none"))
        .server_yaml("security: {max_exposure: 0.5}\n");
    Ran::of(&mut check(&house))
        .exits(78)
        .says("index: exposure 1.2 is above 'max_exposure', 0.5")
        .says("lonely: exposure 0.5");
}

#[test]
fn units_of_the_machines_systemd_are_shown_with_their_sandbox() {
    let house = House::new().worker("index", says("one"));
    Ran::of(check(&house).arg("--show-units"))
        .succeeds()
        .says("User=tqw-index")
        .says("StateDirectory=tqserver/index")
        .says("BindReadOnlyPaths=/var/lib/tqserver/.snapshots/index/1")
        .says("ExecStart=/var/lib/tqserver/.snapshots/.start start-worker 1 close-netlink -- /var/lib/tqserver/.snapshots/index/1/");
}

#[test]
fn a_machine_without_systemd_analyze_can_check_all_the_same() {
    let house = House::new().worker("index", says("one"));
    Ran::of(check(&house).env("PATH", "/nowhere"))
        .succeeds()
        .says("exposure not known: run systemd-analyze");
}

#[test]
fn systemd_takes_every_property_of_a_sandbox() {
    let house = House::new().worker("index", says("one")).open();
    with_systemd(&house, async |systemd| {
        for (number, (network, jit)) in [
            (Network::Full, false),
            (Network::Full, true),
            (Network::Loopback, false),
            (Network::None, false),
        ]
        .into_iter()
        .enumerate()
        {
            let pair = pair(&house, network, jit, number as u64 + 1);
            systemd.start_pair(&pair).await.unwrap();
            systemd.stop_pair(&pair.name(), SECOND).await.unwrap();
        }
    });
    house.get("/").is("one");
}

/// What of a sandbox decides which system calls may be made, as far as a systemd that is not the machine's can do it.
fn filters(house: &House) -> Vec<String> {
    let text = pair(house, Network::Full, false, 1).to_unit_files();
    let mut kept = vec!["NoNewPrivileges=", "RestrictRealtime=", "SystemCall"];
    // Nobody else has any that could be taken away.
    if rustix::process::geteuid().is_root() {
        kept.push("CapabilityBoundingSet=");
    }
    let is_kept = |line: &&str| kept.iter().any(|beginning| line.starts_with(beginning));
    text.lines().filter(is_kept).map(str::to_owned).collect()
}

#[test]
fn threads_can_be_arranged_and_not_made_realtime() {
    let house = House::new().worker("index", says("one")).open();
    let filters = filters(&house);
    for program in [
        // sched_setscheduler(), as libzmq calls it for each of its threads.
        &["chrt", "--other", "0", "true"][..],
        &["chrt", "--batch", "0", "true"],
        &["taskset", "--cpu-list", "0", "true"],
        // setpriority().
        &["nice", "-n", "5", "true"],
    ] {
        house.runs_as_service(&filters, program).succeeds();
    }
    for program in [
        &["chrt", "--fifo", "1", "true"][..],
        &["chrt", "--rr", "1", "true"],
        // sched_setattr(), whose policy no filter sees.
        &[
            "chrt",
            "--deadline",
            "--sched-runtime=500000",
            "--sched-deadline=1000000",
            "--sched-period=1000000",
            "0",
            "true",
        ],
        &["prlimit", "--rtprio=1", "true"],
    ] {
        house
            .runs_as_service(&filters, program)
            .exits(1)
            .says("Operation not permitted");
    }
}
