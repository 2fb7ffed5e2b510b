//! What `kubectl get pods` shows. The STATUS and RESTARTS cells follow the containers, not only the phase.

use object::Time;
use schema::{Column, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, human_duration, text_or, wide};

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "How many of the pod's containers are ready, of how many.", |pod, _| {
        Summary::of(pod).ready().into()
    }),
    column("Status", "string", "What the pod is doing, from its phase and its containers.", |pod, _| {
        Summary::of(pod).reason.into()
    }),
    column("Restarts", "string", "How often its containers were restarted, and when last.", |pod, now| {
        Summary::of(pod).restarts(now).into()
    }),
    AGE,
    wide("IP", "string", "The pod's address.", |pod, _| {
        match path::list(pod, "status.podIPs").first().map(|one| path::text(one, "ip")) {
            None | Some("") => text_or(pod, "status.podIP", "<none>"),
            Some(ip) => ip.into(),
        }
    }),
    wide("Node", "string", "The node that runs it.", |pod, _| text_or(pod, "spec.nodeName", "<none>")),
    wide("Nominated Node", "string", "The node where room is being made for it.", |pod, _| {
        text_or(pod, "status.nominatedNodeName", "<none>")
    }),
    wide("Readiness Gates", "string", "How many of its readiness gates have opened.", |pod, _| gates(pod)),
];

/// What the containers' states come to.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Time>,
}

fn is_sidecar(container: &Value) -> bool {
    path::text(container, "restartPolicy") == "Always"
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    path::list(pod, "status.conditions").iter().find(|one| path::text(one, "type") == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|one| path::text(one, "status") == "True")
}

/// `Error`, `Signal:9`, `ExitCode:1`
fn ending(terminated: &Value) -> String {
    match (path::text(terminated, "reason"), path::int(terminated, "signal").unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", path::int(terminated, "exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let init = path::list(pod, "spec.initContainers");
        let total =
            path::list(pod, "spec.containers").len() + init.iter().filter(|one| is_sidecar(one)).count();
        let mut summary =
            Self { reason: first_reason(pod), ready: 0, total, restarts: 0, last_restart: None };
        let is_initializing = summary.init_containers(pod, init);
        if !is_initializing || is_true(pod, "Initialized") {
            summary.containers(pod, init);
        }
        if path::get(pod, "metadata.deletionTimestamp").is_some() {
            if path::text(pod, "status.reason") == "NodeLost" {
                summary.reason = "Unknown".into();
            } else if !matches!(path::text(pod, "status.phase"), "Failed" | "Succeeded") {
                summary.reason = "Terminating".into();
            }
        }
        summary
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += path::int(status, "restartCount").unwrap_or_default();
        let finished = path::text(status, "lastState.terminated.finishedAt").parse().ok();
        self.last_restart = self.last_restart.max(finished);
    }

    /// Walks the init containers up to the one that is not done; whether there is one.
    fn init_containers(&mut self, pod: &Value, init: &[Value]) -> bool {
        for (index, status) in path::list(pod, "status.initContainerStatuses").iter().enumerate() {
            self.count_restarts(status);
            let own = init.iter().find(|one| path::text(one, "name") == path::text(status, "name"));
            let terminated = path::get(status, "state.terminated");
            if terminated.is_some_and(|state| path::int(state, "exitCode").unwrap_or_default() == 0) {
                continue;
            }
            if own.is_some_and(is_sidecar) && path::bool(status, "started") {
                self.ready += usize::from(path::bool(status, "ready"));
                continue;
            }
            let waiting = path::text(status, "state.waiting.reason");
            self.reason = match terminated {
                Some(state) => format!("Init:{}", ending(state)),
                None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", init.len()),
            };
            return true;
        }
        false
    }

    fn containers(&mut self, pod: &Value, init: &[Value]) {
        self.only_sidecar_restarts(pod, init);
        let mut has_running = false;
        let mut failure = String::new();
        for status in path::list(pod, "status.containerStatuses").iter().rev() {
            self.count_restarts(status);
            let waiting = path::text(status, "state.waiting.reason");
            if !waiting.is_empty() {
                self.reason = waiting.into();
            } else if let Some(state) = path::get(status, "state.terminated") {
                self.reason = ending(state);
                if path::int(state, "exitCode").unwrap_or_default() != 0 {
                    failure.clone_from(&self.reason);
                }
            } else if path::bool(status, "ready") && path::get(status, "state.running").is_some() {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if has_running && is_true(pod, "Ready") {
                self.reason = "Running".into();
            } else if !failure.is_empty() {
                self.reason = failure;
            } else if has_running {
                self.reason = "NotReady".into();
            }
        }
    }

    /// Once the containers run, of the init containers only the restarts of those that run beside them count.
    fn only_sidecar_restarts(&mut self, pod: &Value, init: &[Value]) {
        (self.restarts, self.last_restart) = (0, None);
        for status in path::list(pod, "status.initContainerStatuses") {
            let name = path::text(status, "name");
            if init.iter().any(|one| path::text(one, "name") == name && is_sidecar(one)) {
                self.count_restarts(status);
            }
        }
    }

    fn ready(&self) -> String {
        format!("{}/{}", self.ready, self.total)
    }

    fn restarts(&self, now: Time) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!("{} ({} ago)", self.restarts, human_duration(now.secs_since(last)))
            }
            _ => self.restarts.to_string(),
        }
    }
}

fn first_reason(pod: &Value) -> String {
    let gated =
        condition(pod, "PodScheduled").is_some_and(|one| path::text(one, "reason") == "SchedulingGated");
    match path::text(pod, "status.reason") {
        _ if gated => "SchedulingGated".into(),
        "" => path::text(pod, "status.phase").into(),
        reason => reason.into(),
    }
}

fn gates(pod: &Value) -> Value {
    let gates = path::list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| is_true(pod, path::text(gate, "conditionType"))).count();
    format!("{open}/{}", gates.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(pod: Value, ready: &str, status: &str, restarts: &str) {
        let summary = Summary::of(&pod);
        let now = "2026-01-01T01:00:00Z".parse().expect("a time");
        let cells = (summary.ready(), summary.reason.clone(), summary.restarts(now));
        assert_eq!(cells, (ready.to_owned(), status.to_owned(), restarts.to_owned()), "{pod}");
    }

    #[test]
    fn the_first_container_that_fails_gives_the_status() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let running = json!({"name": "b", "ready": true, "restartCount": 0, "state": {"running": {}}});
        check(
            json!({"spec": spec, "status": {"phase": "Running", "containerStatuses": [
                {"name": "a", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}}, running]}}),
            "1/2",
            "CrashLoopBackOff",
            "3 (5m ago)",
        );
        check(
            json!({"spec": spec, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "a", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}, running]}}),
            "1/2",
            "Running",
            "0",
        );
        check(json!({"spec": spec, "status": {"phase": "Pending"}}), "0/2", "Pending", "0");
        check(
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": {"phase": "Running"}}),
            "0/2",
            "Terminating",
            "0",
        );
        check(
            json!({"spec": spec, "status": {"phase": "Failed", "containerStatuses": [
                {"name": "a", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]}}),
            "0/2",
            "Signal:9",
            "0",
        );
    }

    #[test]
    fn init_containers_come_first() {
        let spec = json!({"containers": [{"name": "a"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        check(
            json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "restartCount": 1, "state": {"running": {}}}, {"name": "s", "restartCount": 9}]}}),
            "0/2",
            "Init:0/2",
            "1",
        );
        check(
            json!({"spec": spec, "status": {"phase": "Running", "initContainerStatuses": [
                {"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 0}}},
                {"name": "s", "restartCount": 2, "started": true, "ready": true, "state": {"running": {}}}],
                "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]}}),
            "2/2",
            "Running",
            "2",
        );
        check(
            json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}}),
            "0/2",
            "Init:Error",
            "0",
        );
    }
}
