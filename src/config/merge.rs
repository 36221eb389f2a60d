//! What applies to one worker: the defaults, its own file over them, the administrator's word for its route over both.

use std::path::{Path, PathBuf};

use super::limits::LimitsPatch;
use super::problem::{Place, Problem, Problems};
use super::program::{Listen, WorkerType};
use super::settings::Settings;
use super::worker::WorkerFile;
use super::worker_settings::WorkerSettings;
use crate::limits::ByteSize;
use crate::names::WorkerName;
use crate::route::{HostPattern, Indexes, RoutePath, endless, longest_match};
use crate::types;

impl Settings {
    /// The settings of the worker `name` in `directory`, whose file is `file` and whose type is `kind`.
    ///
    /// Limits come from `workers.default`, then `worker.yaml`, then the one entry of `workers.paths` that is the route or its longest
    /// prefix, each over the one before.
    ///
    /// # Errors
    /// What the file asks for beyond `workers.max`, a program in a directory of workers, limits that contradict each other, or a route
    /// that is not to be had. "No limit" is beyond any cap.
    pub fn for_worker(
        &self,
        name: &WorkerName,
        directory: &Path,
        file: &WorkerFile,
        kind: WorkerType,
    ) -> Result<WorkerSettings, Problems> {
        let mut problems = self.beyond_caps(file);
        if kind == WorkerType::Php && file.command.is_none() && file.listen == Listen::Port {
            let place = file.places.get("listen").cloned().unwrap_or_default();
            let message = "'listen: port' is not for PHP scripts: php-fpm is handed a socket";
            let help = "remove 'listen', or name a 'command' that speaks HTTP on a port";
            problems.0.push(Problem::new(place, message).help(help));
        }
        if (kind != WorkerType::Php || file.command.is_some()) && file.front_controller.is_some() {
            let place = file
                .places
                .get("front_controller")
                .cloned()
                .unwrap_or_default();
            let message =
                "'front_controller' is for PHP scripts that php-fpm runs, and this worker has none";
            problems
                .0
                .push(Problem::new(place, message).help("remove 'front_controller'"));
        }
        problems.0.extend(self.among_workers(file));
        let route = file
            .path
            .clone()
            .unwrap_or_else(|| RoutePath::of_worker(name));
        if route == self.front.health_path {
            let place = Place::file(directory);
            let message = format!("the route {route} is that of the server's own health report");
            let help = "give the worker another 'path', or change 'server.health_path'";
            problems.0.push(Problem::new(place, message).help(help));
        }
        problems.0.extend(self.foreign_hosts(name, file));
        problems.0.extend(useless_redirects(file, &route));
        let mut limits = self.default.with(&file.limits);
        let last = longest_match(&self.paths, route.as_str());
        if let Some((_, patch)) = last {
            limits = limits.with(patch);
        }
        if let Some((high, most)) = limits.high_above_most() {
            let contradiction = self.contradiction(name, file, last, high, most);
            problems.0.push(contradiction);
        }
        problems.or(WorkerSettings {
            name: name.clone(),
            route,
            on_route: file.on_route.clone(),
            kind,
            command: file.command.clone(),
            build: file.build.clone(),
            listen: file.listen,
            h2c: file.h2c,
            health: file.health.clone(),
            env: file.env.clone(),
            env_files: file.env_files.clone(),
            env_from_credentials: file.env_from_credentials.clone(),
            network: file.network,
            kernel: file.kernel.clone(),
            jit: file.jit.unwrap_or(types::of(kind).jit),
            cache: file.cache,
            credentials: file.credentials.clone(),
            persisted: file.persisted.clone(),
            autostart: file.autostart,
            document_root: None,
            front_controller: file.front_controller.clone(),
            indexes: Indexes::default(),
            sticky: file.sticky.cookie_of(name),
            limits,
        })
    }

    fn beyond_caps(&self, file: &WorkerFile) -> Problems {
        let (asked, max) = (&file.limits, &self.max);
        let mut problems = Vec::new();
        let mut beyond = |key: &str, asked: String, cap: String| {
            let place = file.places.get(key).cloned().unwrap_or_default();
            let message = format!("'{key}' asks for {asked}; this server allows {cap}");
            let help = format!(
                "ask for at most {cap}, or have 'workers.max.{key}' raised in {}",
                self.file.display()
            );
            problems.push(Problem::new(place, message).help(help));
        };
        if let (Some(asked), Some(cap)) = (asked.gomaxprocs, max.gomaxprocs)
            && (asked == 0 || asked > cap)
        {
            let asked = if asked == 0 {
                "all cores (0)".to_owned()
            } else {
                asked.to_string()
            };
            beyond("gomaxprocs", asked, cap.to_string());
        }
        for (key, asked, cap) in [
            ("gomemlimit", asked.gomemlimit, max.gomemlimit),
            ("memory_high", asked.memory_high, max.memory_high),
            ("state_max", asked.state_max, max.state_max),
            ("max_body_size", asked.max_body_size, max.max_body_size),
        ] {
            if let (Some(asked), Some(cap)) = (asked, cap)
                && asked.is_none_or(|asked| asked > cap)
            {
                let asked = asked.map_or("no limit".to_owned(), |size: ByteSize| size.to_string());
                beyond(key, asked, cap.to_string());
            }
        }
        if let (Some(asked), Some(cap)) = (asked.max_concurrency, max.max_concurrency)
            && (asked == 0 || asked > cap)
        {
            let asked = match asked {
                0 => "no limit (0)".to_owned(),
                asked => asked.to_string(),
            };
            beyond("max_concurrency", asked, cap.to_string());
        }
        for (key, asked, cap) in [
            ("tasks_max", asked.tasks_max, max.tasks_max),
            ("cpu_weight", asked.cpu_weight, max.cpu_weight),
            ("io_weight", asked.io_weight, max.io_weight),
            ("queue_size", asked.queue_size, max.queue_size),
            (
                "instances",
                asked.instances.map(u64::from),
                max.instances.map(u64::from),
            ),
        ] {
            if let (Some(asked), Some(cap)) = (asked, cap)
                && asked > cap
            {
                beyond(key, asked.to_string(), cap.to_string());
            }
        }
        Problems(problems)
    }

    /// Hosts that the administrator does not leave to workers.
    fn foreign_hosts(&self, name: &WorkerName, file: &WorkerFile) -> Vec<Problem> {
        let Some(allowed) = &self.grants.hosts else {
            return Vec::new();
        };
        let own = self.grants.own_hosts.get(name).into_iter().flatten();
        let own: Vec<_> = allowed.iter().chain(own).collect();
        let is_foreign = |host: &&HostPattern| !own.iter().any(|one| one.covers(host));
        let problem = |host: &HostPattern| {
            let place = file.places.get("hosts").cloned().unwrap_or_default();
            let names: Vec<&str> = allowed.iter().map(HostPattern::as_str).collect();
            let message =
                format!("'hosts' names '{host}', which this server does not leave to workers");
            let help = format!(
                "name one of {}, or have it added to 'workers.hosts' in {}",
                names.join(", "),
                self.file.display()
            );
            Problem::new(place, message).help(help)
        };
        file.on_route
            .hosts
            .iter()
            .filter(is_foreign)
            .map(problem)
            .collect()
    }

    /// Absolute paths into a directory of workers. Another worker's files are not its own, and its own lie in a snapshot when it runs:
    /// by an absolute path it would run what was deployed and never accepted.
    fn among_workers(&self, file: &WorkerFile) -> Vec<Problem> {
        let command = file.command.iter().flatten().map(|word| ("command", word));
        // The arguments of a build are not looked at: it runs where the files lie.
        let build = file.build.iter().flatten().take(1);
        let mut problems: Vec<Problem> = Vec::new();
        for (key, word) in command.chain(build.map(|word| ("build", word))) {
            let path = Path::new(word);
            let is_there = |directory: &PathBuf| path.starts_with(directory);
            if !self.workers_directories.iter().any(is_there) {
                continue;
            }
            let place = file.places.get(key).cloned().unwrap_or_default();
            if problems.iter().any(|problem| problem.place == place) {
                continue;
            }
            let message =
                format!("'{key}' names '{word}', which is among the workers' directories");
            let help = "name a file of this worker by its path inside the worker's directory, as in bin/app";
            problems.push(Problem::new(place, message).help(help));
        }
        problems
    }

    /// What is wrong when `memory_high` is above `gomemlimit`, which may stand in different files.
    fn contradiction(
        &self,
        name: &WorkerName,
        file: &WorkerFile,
        last: Option<(&RoutePath, &LimitsPatch)>,
        high: ByteSize,
        most: ByteSize,
    ) -> Problem {
        let server = self.file.display();
        let set = |key: &str, of_route: bool, of_file: bool| match last {
            Some((route, _)) if of_route => {
                (format!("workers.paths.\"{route}\" in {server}"), None)
            }
            _ if of_file => ("worker.yaml".to_owned(), file.places.get(key).cloned()),
            _ => (format!("workers.default in {server}"), None),
        };
        let (high_from, high_place) = set(
            "memory_high",
            last.is_some_and(|(_, patch)| patch.memory_high.is_some()),
            file.limits.memory_high.is_some(),
        );
        let (most_from, most_place) = set(
            "gomemlimit",
            last.is_some_and(|(_, patch)| patch.gomemlimit.is_some()),
            file.limits.gomemlimit.is_some(),
        );
        let place = high_place.or(most_place);
        let place = place.unwrap_or_else(|| Place::file(&self.file));
        let message = format!(
            "'memory_high' of the worker '{name}', {high} ({high_from}), is above its 'gomemlimit', {most} ({most_from}), and would \
             never be reached"
        );
        let help = format!("set 'memory_high' to at most {most}, or raise 'gomemlimit'");
        Problem::new(place, message).help(help)
    }
}

/// Redirects for what is not on the worker's route, and those that lead round in circles.
fn useless_redirects(file: &WorkerFile, route: &RoutePath) -> Vec<Problem> {
    let mut problems = Vec::new();
    let redirects = &file.on_route.redirects;
    for (redirect, place) in redirects.iter().zip(&file.redirect_places) {
        let start = redirect.start();
        if !route.covers(start) {
            let message =
                format!("no request for {start} comes to this worker, whose route is {route}");
            let help = format!("write the whole path, as in {}{start}", route.prefix());
            problems.push(Problem::new(place.clone(), message).help(help));
        }
    }
    if let Some(at) = endless(redirects, &file.on_route.hosts) {
        let (redirect, place) = (&redirects[at], &file.redirect_places[at]);
        let message = format!(
            "a request for {} would be redirected by this worker again and again",
            redirect.start()
        );
        let help = "let 'to' be a place that none of its redirects begins at";
        problems.push(Problem::new(place.clone(), message).help(help));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::route::Flow;

    fn server(text: &str) -> Settings {
        Settings::parse(Path::new("/srv/config/server.yaml"), text).unwrap()
    }

    fn merged(server: &Settings, name: &str, text: &str) -> Result<WorkerSettings, Problems> {
        let file = WorkerFile::parse(Path::new("worker.yaml"), text).unwrap();
        let name = WorkerName::parse(name).unwrap();
        let directory = Path::new("/srv/workers").join(name.directory());
        server.for_worker(&name, &directory, &file, WorkerType::Exec)
    }

    #[test]
    fn the_administrators_word_for_a_route_is_the_last() {
        let server = server(
            "workers:\n  default: {gomaxprocs: 2, max_requests: 10, read_timeout_seconds: 20}\n  paths:\n    /api: {gomaxprocs: 4}\n",
        );
        let limits = merged(&server, "api.users", "{gomaxprocs: 8, max_requests: 30}")
            .unwrap()
            .limits;
        assert_eq!(
            limits.gomaxprocs.unwrap().cores,
            4,
            "workers.paths over worker.yaml"
        );
        assert_eq!(limits.max_requests, 30, "worker.yaml over workers.default");
        assert_eq!(
            limits.timeouts.read,
            Duration::from_secs(20),
            "workers.default over the built-in"
        );
        assert_eq!(
            limits.timeouts.idle,
            Duration::from_secs(120),
            "the built-in"
        );
    }

    #[test]
    fn what_is_not_set_of_the_flow_is_as_it_was() {
        let server =
            server("workers: {default: {max_body_size: 1MiB, max_concurrency: 4, retries: 3}}");
        let flow = |text: &str| merged(&server, "a", text).unwrap().limits.flow;
        let inherited =
            flow("{queue_size: 7, queue_timeout_seconds: 2, request_timeout_seconds: 9}");
        assert_eq!(
            inherited,
            Flow {
                max_body: Some(1 << 20),
                max_concurrency: 4,
                queue_size: 7,
                queue_timeout: Duration::from_secs(2),
                retries: 3,
                request_timeout: Duration::from_secs(9),
            }
        );
        let undone =
            flow("{max_body_size: '', max_concurrency: 0, retries: 1, request_timeout_seconds: 0}");
        assert_eq!(undone, Flow::default());
    }

    #[test]
    fn the_exact_route_then_the_longest_prefix_on_a_segment() {
        let server = server(
            "workers:\n  paths:\n    /api: {max_requests: 1}\n    /api/users: {max_requests: 2}\n    /api/users/x: {max_requests: 3}\n",
        );
        for (name, expected) in [
            ("api", 1),
            ("api.users", 2),
            ("api.users.y", 2),
            ("api.userz", 1),
            ("apix", 0),
            ("index", 0),
        ] {
            assert_eq!(
                merged(&server, name, "").unwrap().limits.max_requests,
                expected,
                "{name}"
            );
        }
        assert_eq!(
            merged(&server, "other", "path: /api/users")
                .unwrap()
                .limits
                .max_requests,
            2
        );
    }

    #[test]
    fn a_file_can_not_ask_for_more_than_the_cap() {
        let server = server("workers: {max: {gomaxprocs: 2, gomemlimit: 1GiB, tasks_max: 64}}");
        assert!(
            merged(
                &server,
                "a",
                "{gomaxprocs: 2, gomemlimit: 1GiB, tasks_max: 64}"
            )
            .is_ok()
        );
        assert!(merged(&server, "a", "").is_ok());
        for beyond in [
            "gomaxprocs: 3",
            "gomaxprocs: 0",
            "gomemlimit: 2GiB",
            "gomemlimit: ''",
            "tasks_max: 65",
        ] {
            let problems = merged(&server, "a", &format!("listen: socket\n{beyond}")).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{problems}");
            assert_eq!(problems.0[0].place.line, 2, "{problems}");
            assert!(problems.to_string().contains("workers.max."), "{problems}");
        }
    }

    #[test]
    fn every_limit_that_has_a_cap_keeps_below_it() {
        let server = server(
            "workers: {max: {memory_high: 1GiB, state_max: 2GiB, cpu_weight: 200, io_weight: 300, instances: 4, max_body_size: 1MiB, max_concurrency: 8, queue_size: 50}}",
        );
        assert!(
            merged(
                &server,
                "a",
                "{memory_high: 1GiB, state_max: 2GiB, cpu_weight: 200, io_weight: 300, instances: 4, max_body_size: 1MiB, max_concurrency: 8, queue_size: 50}"
            )
            .is_ok()
        );
        for beyond in [
            "memory_high: 2GiB",
            "memory_high: ''",
            "state_max: 3GiB",
            "state_max: ''",
            "cpu_weight: 201",
            "io_weight: 10000",
            "max_body_size: 2MiB",
            "max_body_size: ''",
            "max_concurrency: 9",
            "max_concurrency: 0",
            "queue_size: 51",
            "instances: 5",
        ] {
            let problems = merged(&server, "a", &format!("listen: socket\n{beyond}")).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{problems}");
            assert_eq!(problems.0[0].place.line, 2, "{problems}");
            assert!(problems.to_string().contains("workers.max."), "{problems}");
        }
    }

    #[test]
    fn memory_high_above_gomemlimit_names_where_each_comes_from() {
        let server = server(
            "workers:\n  default: {gomemlimit: 1GiB}\n  paths:\n    /a: {memory_high: 2GiB}\n",
        );
        let refused = |name: &str, text: &str| {
            let problems = merged(&server, name, text).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{problems}");
            problems.to_string()
        };
        let text = refused("b", "memory_high: 2GiB");
        assert!(text.starts_with("worker.yaml:1:14: "), "{text}");
        assert!(text.contains("2GiB (worker.yaml)"), "{text}");
        assert!(
            text.contains("1GiB (workers.default in /srv/config/server.yaml)"),
            "{text}"
        );
        let text = refused("a", "");
        assert!(text.starts_with("/srv/config/server.yaml: "), "{text}");
        assert!(text.contains("2GiB (workers.paths.\"/a\" in"), "{text}");
        assert!(merged(&server, "a", "gomemlimit: 3GiB").is_ok());
        assert!(merged(&server, "b", "memory_high: 1GiB").is_ok());
    }

    #[test]
    fn no_command_names_a_file_among_the_workers() {
        let server = server("workers: {directory: [/srv/workers, /usr/lib/workers]}");
        for bad in [
            "command: [/srv/workers/other/bin/other]",
            "command: [/srv/workers/a/bin/a]",
            "command: [/usr/bin/python3, /usr/lib/workers/other/app.py]",
            "build: [/srv/workers/other/build]",
        ] {
            let problems = merged(&server, "a", bad).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{problems}");
            assert_eq!(problems.0[0].place.line, 1, "{problems}");
        }
        for good in [
            "command: [/usr/bin/python3, src/app.py]",
            "command: [/srv/workers2/bin/a]",
            "build: [make, -C, /srv/workers/shared]",
        ] {
            assert!(merged(&server, "a", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn machine_code_is_made_at_run_time_where_the_type_does_so() {
        let file = |text: &str| WorkerFile::parse(Path::new("worker.yaml"), text).unwrap();
        let jit = |kind, text: &str| {
            let name = WorkerName::parse("a").unwrap();
            let merged = server("").for_worker(&name, Path::new("/a"), &file(text), kind);
            merged.unwrap().jit
        };
        for (kind, expected) in [
            (WorkerType::Rust, false),
            (WorkerType::Go, false),
            (WorkerType::Static, false),
            (WorkerType::Node, true),
            (WorkerType::Python, true),
            (WorkerType::Php, true),
            (WorkerType::Exec, true),
        ] {
            assert_eq!(jit(kind, ""), expected, "{kind}");
            assert!(!jit(kind, "jit: false") && jit(kind, "jit: true"), "{kind}");
        }
    }

    #[test]
    fn answers_are_compressed_unless_somebody_does_not_want_it() {
        let compression = |text: &str, file: &str| {
            let merged = merged(&server(text), "a", file);
            merged.unwrap().limits.compression
        };
        assert!(compression("", ""));
        assert!(!compression("", "compression: false"));
        assert!(!compression("workers: {default: {compression: false}}", ""));
        let forced = "workers: {default: {compression: false}, paths: {/a: {compression: true}}}";
        assert!(compression(forced, "compression: false"));
    }

    #[test]
    fn the_servers_own_health_path_is_no_route() {
        assert!(merged(&server(""), "health", "").is_err());
        assert!(merged(&server("server: {health_path: /up}"), "health", "").is_ok());
    }
}
