//! `workers.max` for what runs already.

use super::limits::Limits;
use super::settings::Settings;
use crate::limits::{ByteSize, CpuQuota};
use crate::route::{RoutePath, longest_match};

impl Settings {
    /// `limits` of a worker on `route`, which were accepted before, with what is above `workers.max` lowered to it; and what was lowered, in words.
    /// What the administrator gives all workers, or that route, stays. So does the number of instances: no unit can be made another.
    pub fn lowered(&self, route: &RoutePath, limits: &Limits) -> (Limits, Vec<String>) {
        let own = match longest_match(&self.paths, route.as_str()) {
            Some((_, patch)) => self.default.with(patch),
            None => self.default.clone(),
        };
        let (max, mut new, mut words) = (&self.max, limits.clone(), Vec::new());
        let cap = max.gomaxprocs.map(|cores| CpuQuota { cores });
        let above = |cap: CpuQuota| limits.gomaxprocs.is_none_or(|now| now.cores > cap.cores);
        if let Some(cap) = cap.filter(|cap| above(*cap) && limits.gomaxprocs != own.gomaxprocs) {
            new.gomaxprocs = Some(cap);
            words.push(format!("gomaxprocs is {} now", cap.cores));
        }
        for (key, now, own, cap, new) in [
            (
                "gomemlimit",
                limits.gomemlimit,
                own.gomemlimit,
                max.gomemlimit,
                &mut new.gomemlimit,
            ),
            (
                "memory_high",
                limits.memory_high,
                own.memory_high,
                max.memory_high,
                &mut new.memory_high,
            ),
            (
                "state_max",
                limits.state_max,
                own.state_max,
                max.state_max,
                &mut new.state_max,
            ),
        ] {
            let above = |cap: &ByteSize| now != own && now.is_none_or(|now| now > *cap);
            if let Some(cap) = cap.filter(above) {
                *new = Some(cap);
                words.push(format!("{key} is {cap} now"));
            }
        }
        for (key, now, own, cap, new) in [
            (
                "tasks_max",
                limits.tasks_max,
                own.tasks_max,
                max.tasks_max,
                &mut new.tasks_max,
            ),
            (
                "cpu_weight",
                limits.cpu_weight,
                own.cpu_weight,
                max.cpu_weight,
                &mut new.cpu_weight,
            ),
            (
                "io_weight",
                limits.io_weight,
                own.io_weight,
                max.io_weight,
                &mut new.io_weight,
            ),
        ] {
            let above = |cap: &u64| now != own && now.is_some_and(|now| now > *cap);
            if let Some(cap) = cap.filter(above) {
                *new = Some(cap);
                words.push(format!("{key} is {cap} now"));
            }
        }
        let (now, own) = (limits.flow, own.flow);
        let above = |cap: &ByteSize| {
            now.max_body != own.max_body && now.max_body.is_none_or(|now| now > cap.0)
        };
        if let Some(cap) = max.max_body_size.filter(above) {
            new.flow.max_body = Some(cap.0);
            words.push(format!("max_body_size is {cap} now"));
        }
        let count = |cap: Option<u64>| cap.map(|cap| u32::try_from(cap).unwrap_or(u32::MAX));
        let most = now.max_concurrency;
        let above = |cap: &u32| most != own.max_concurrency && (most == 0 || most > *cap);
        if let Some(cap) = count(max.max_concurrency).filter(above) {
            new.flow.max_concurrency = cap;
            words.push(format!("max_concurrency is {cap} now"));
        }
        let above = |cap: &u32| now.queue_size != own.queue_size && now.queue_size > *cap;
        if let Some(cap) = count(max.queue_size).filter(above) {
            new.flow.queue_size = cap;
            words.push(format!("queue_size is {cap} now"));
        }
        (new, words)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::WorkerFile;

    #[test]
    fn what_runs_is_lowered_to_the_cap_and_the_administrators_own_word_stays() {
        let settings = |text: String| Settings::parse(Path::new("server.yaml"), &text).unwrap();
        let asks = "{state_max: 5GiB, tasks_max: 500, gomemlimit: 1GiB, gomaxprocs: 4, max_concurrency: 0, cpu_weight: 5}";
        let file = WorkerFile::parse(Path::new("worker.yaml"), asks).unwrap();
        let running = Limits::default().with(&file.limits);
        let route = RoutePath::parse("/big").unwrap();
        let state = "workers: {max: {state_max: 1GiB}}".to_owned();
        let (lowered, words) = settings(state).lowered(&route, &running);
        assert_eq!(lowered.state_max, Some(ByteSize(1 << 30)));
        assert_eq!(words, ["state_max is 1GiB now"]);
        let max = "max: {tasks_max: 50, gomemlimit: 64MiB, gomaxprocs: 2, cpu_weight: 10}";
        let (lowered, words) = settings(format!("workers: {{{max}}}")).lowered(&route, &running);
        assert_eq!(lowered.tasks_max, Some(50));
        assert_eq!(lowered.gomemlimit, Some(ByteSize(64 << 20)));
        assert_eq!(lowered.gomaxprocs, Some(CpuQuota { cores: 2 }));
        assert_eq!(lowered.cpu_weight, Some(5));
        assert_eq!(words.len(), 3, "{words:?}");
        let own = settings(format!(
            "workers: {{{max}, paths: {{/big: {{tasks_max: 500}}}}}}"
        ));
        assert_eq!(own.lowered(&route, &running).0.tasks_max, Some(500));
        let again = settings(format!("workers: {{{max}}}")).lowered(&route, &lowered);
        assert_eq!(again, (lowered, Vec::new()));
    }
}
