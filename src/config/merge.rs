//! What applies to one worker: the defaults, its own file over them, the administrator's word for its route over both.

use super::problem::{Place, Problem, Problems};
use super::{Settings, WorkerFile, WorkerSettings, WorkerType};
use crate::limits::ByteSize;
use crate::names::WorkerName;
use crate::route::{RoutePath, longest_match};

impl Settings {
    /// The settings of the worker `name`, whose file is `file` and whose type is `kind`.
    ///
    /// Limits come from `workers.default`, then `worker.yaml`, then the one entry of `workers.paths` that is the route or its longest
    /// prefix, each over the one before.
    ///
    /// # Errors
    /// What the file asks for beyond `workers.max`, or a route that is not to be had. "No limit" is beyond any cap.
    pub fn for_worker(
        &self,
        name: &WorkerName,
        file: &WorkerFile,
        kind: WorkerType,
    ) -> Result<WorkerSettings, Problems> {
        let mut problems = self.beyond_caps(file);
        let route = file
            .path
            .clone()
            .unwrap_or_else(|| RoutePath::of_worker(name));
        if route == self.front.health_path {
            let place = Place::file(self.workers_directory.join(name.directory()));
            let message = format!("the route {route} is that of the server's own health report");
            let help = "give the worker another 'path', or change 'server.health_path'";
            problems.0.push(Problem::new(place, message).help(help));
        }
        let mut limits = self.default.with(&file.limits);
        if let Some((_, patch)) = longest_match(&self.paths, route.as_str()) {
            limits = limits.with(patch);
        }
        problems.or(WorkerSettings {
            name: name.clone(),
            route,
            kind,
            command: file.command.clone(),
            build: file.build.clone(),
            listen: file.listen,
            health: file.health.clone(),
            env: file.env.clone(),
            network: file.network,
            jit: file.jit.unwrap_or(!matches!(
                kind,
                WorkerType::Rust | WorkerType::Go | WorkerType::Static
            )),
            cache: file.cache,
            credentials: file.credentials.clone(),
            autostart: file.autostart,
            limits,
        })
    }

    fn beyond_caps(&self, file: &WorkerFile) -> Problems {
        let (asked, max) = (&file.limits, &self.max);
        let [cores_place, memory_place, tasks_place] = &file.places;
        let mut problems = Vec::new();
        let mut beyond = |place: &Option<Place>, key: &str, asked: String, cap: String| {
            let place = place.clone().unwrap_or_default();
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
            beyond(cores_place, "gomaxprocs", asked, cap.to_string());
        }
        if let (Some(asked), Some(cap)) = (asked.gomemlimit, max.gomemlimit)
            && asked.is_none_or(|asked| asked > cap)
        {
            let asked = asked.map_or("no limit".to_owned(), |size: ByteSize| size.to_string());
            beyond(memory_place, "gomemlimit", asked, cap.to_string());
        }
        if let (Some(asked), Some(cap)) = (asked.tasks_max, max.tasks_max)
            && asked > cap
        {
            beyond(tasks_place, "tasks_max", asked.to_string(), cap.to_string());
        }
        Problems(problems)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn server(text: &str) -> Settings {
        Settings::parse(Path::new("/srv/config/server.yaml"), text).unwrap()
    }

    fn merged(server: &Settings, name: &str, text: &str) -> Result<WorkerSettings, Problems> {
        let file = WorkerFile::parse(Path::new("worker.yaml"), text).unwrap();
        server.for_worker(&WorkerName::parse(name).unwrap(), &file, WorkerType::Exec)
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
    fn the_servers_own_health_path_is_no_route() {
        assert!(merged(&server(""), "health", "").is_err());
        assert!(merged(&server("server: {health_path: /up}"), "health", "").is_ok());
    }
}
