//! What `aws::control` decides, carried out: one transaction on the account, then writes to a cluster.

use std::sync::{Mutex, PoisonError};

use account::{Account, OpenError};
use aws::Context;
use aws::control::{InCluster, Plan};
use engine::Recorder;
use gate::Gate;
use object::Status;
use plan::User;
use tracing::debug;

use crate::deciders::event_user;

/// Commits what is decided on the account, and gives the rest of the plan. A transaction that comes too late is decided anew.
pub async fn commit(account: &Account, decide: impl Fn(&mut Context) -> Plan) -> Result<Plan, OpenError> {
    let planned = Mutex::new(Plan::default());
    account
        .change(|context| {
            let mut plan = decide(context);
            let changes = std::mem::take(&mut plan.changes);
            *planned.lock().unwrap_or_else(PoisonError::into_inner) = plan;
            changes
        })
        .await?;
    Ok(planned.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Makes writes to a cluster; whether all were taken. What is refused is to be asked for again: a budget allows nothing now, or somebody
/// was faster.
pub async fn carry_out(
    gate: &Gate,
    steps: Vec<InCluster>,
    component: &str,
    recorder: Option<&Recorder>,
) -> bool {
    let mut are_done = true;
    let user = event_user();
    for step in steps {
        let done = match step {
            InCluster::Write(write) => gate.execute(&user, write).await.map(drop),
            InCluster::Evict(pod) => gate.evict(&user, &pod).await,
            InCluster::Do(plan) => execute(gate, &user, plan, component, recorder).await,
        };
        if let Err(status) = done {
            debug!(component, %status, "not now");
            are_done = false;
        }
    }
    are_done
}

async fn execute(
    gate: &Gate,
    user: &User,
    plan: plan::Plan,
    component: &str,
    recorder: Option<&Recorder>,
) -> Result<(), Status> {
    for write in plan.writes {
        gate.execute(user, write).await?;
    }
    if let Some(recorder) = recorder {
        plan.events.into_iter().for_each(|event| recorder.record(component, event));
    }
    Ok(())
}
