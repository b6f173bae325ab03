//! Policies: compiled once, shared in cells by all keys and clients that have them.
//!
//! What cannot be compiled never takes the place of what was: the running policy stays as it is,
//! and the fault is told. Where nothing was, it is stored as it is, so that it is never taken for
//! none. A policy that nobody knows, or can read, leaves its callers undecidable; only `default`
//! says nothing, and so restricts nothing, where nobody wrote one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::entry::{Cells, PolicyCell};
use super::overlay::Overlay;
use super::source::{KeyRow, PolicyRow};
use super::{Cache, Stored};
use crate::disk::StoreError;
use crate::model::policy::{LimitIds, OnUndecidable, PolicyProblem, Rules};
use crate::model::{Client, DEFAULT_POLICY, Key, Name, Policy};

/// The policies of all keys and clients in memory.
#[derive(Debug, Default)]
pub(super) struct Policies {
    cells: Mutex<Cells<PolicyCell>>,
    ids: Mutex<LimitIds>,
}

/// A policy, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyView {
    /// The policy.
    pub policy: Policy,
    /// Whether it stands in the configuration, which wins over Postgres.
    pub declared: bool,
}

impl Cache {
    /// A policy by name: declared, or on disk.
    ///
    /// # Errors
    /// When the disk tier cannot be read.
    pub fn policy(&self, name: &str) -> Stored<PolicyView> {
        if let Some(policy) = self.declared.policy(name) {
            return Ok(Some(PolicyView { policy: policy.clone(), declared: true }));
        }
        let stored = self.store.policy(name)?.map(|row| row.policy);
        Ok(stored.map(|policy| PolicyView { policy, declared: false }))
    }

    /// All policies, by name. Blocks on disk.
    pub fn policies(&self) -> Vec<PolicyView> {
        let stored = self.store.policies().filter_map(Result::ok).map(|row| row.policy);
        let stored = stored.filter(|policy| self.declared.policy(&policy.name).is_none());
        let stored = stored.map(|policy| PolicyView { policy, declared: false });
        let declared = self.declared.policies.iter().cloned();
        let declared = declared.map(|policy| PolicyView { policy, declared: true });
        let mut all: Vec<_> = stored.chain(declared).collect();
        all.sort_by(|a, b| a.policy.name.cmp(&b.policy.name));
        all
    }

    /// A client, or key that is not over, that has the policy `name` and that Postgres may not
    /// know: it is declared, or has not drained yet.
    pub fn has_policy_here(&self, name: &str) -> Option<String> {
        let overlay = self.overlay();
        let of_client =
            |client: &&Client| *client.policy.as_deref().unwrap_or(DEFAULT_POLICY) == *name;
        let client = self.declared.clients.iter().chain(overlay.clients()).find(of_client);
        let of_key =
            |key: &&Key| key.policy.as_deref() == Some(name) && !self.is_over(&overlay, key);
        let key = || self.declared.keys.iter().chain(overlay.keys()).find(of_key);
        let client = client.map(|client| format!("client {}", client.name));
        client.or_else(|| Some(format!("key {}", key()?.id)))
    }

    /// Policies that clients or keys have and that nobody knows: who has one is undecidable. Blocks
    /// on disk, until `stop`. It reads all keys, and rests as it goes: it is in no hurry.
    pub fn missing_policies(&self, stop: &dyn Fn() -> bool) -> BTreeSet<Name> {
        const STEP: usize = 1000;
        const REST: Duration = Duration::from_millis(10);
        let (of_client, of_key) = (|of: &Client| of.policy.clone(), |of: &Key| of.policy.clone());
        let overlay = self.overlay();
        let clients = self.declared.clients.iter().chain(overlay.clients()).filter_map(of_client);
        let keys = self.declared.keys.iter().chain(overlay.keys());
        let keys = keys.filter(|key| !self.is_over(&overlay, key)).filter_map(of_key);
        let mut names: BTreeSet<_> = clients.chain(keys).collect();
        drop(overlay);
        let clients = self.store.clients().filter_map(|row| of_client(&row.ok()?.client));
        names.extend(clients.take_while(|_| !stop()));
        for (at, row) in self.store.keys().enumerate() {
            if at % STEP == STEP - 1 {
                std::thread::sleep(REST);
            }
            if stop() {
                break;
            }
            let Ok(KeyRow { key, .. }) = row else { continue };
            let new = key.policy.as_ref().filter(|policy| !names.contains(*policy));
            if let Some(policy) = new
                && !self.is_over(&self.overlay(), &key)
            {
                names.insert(policy.clone());
            }
        }
        names.retain(|name| **name != *DEFAULT_POLICY && matches!(self.policy(name), Ok(None)));
        names
    }

    /// Whether a key is refused for its own sake, whatever its policy says.
    fn is_over(&self, overlay: &Overlay, key: &Key) -> bool {
        key.is_over(self.or_count(self.key_revoked_at(overlay, key.id)), self.clock.now())
    }

    /// What the policy `name` says; `None`: nobody knows it, or can read it.
    ///
    /// # Errors
    /// When the disk tier cannot be read.
    pub fn rules(&self, name: &Name) -> Stored<Rules> {
        match self.policy(name)? {
            Some(view) => Ok(self.compile(&view.policy)),
            None if **name == *DEFAULT_POLICY => Ok(Some(Rules::unrestricted(name))),
            None => Ok(None),
        }
    }

    /// The cell that all share who have the policy `name`.
    pub(super) fn policy_cell(&self, name: &Name) -> Result<Arc<PolicyCell>, StoreError> {
        let mut cells = self.policies.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(name) {
            return Ok(cell.clone());
        }
        let cell = Arc::new(PolicyCell::new(self.rules(name)?));
        cells.insert(name.clone(), cell.clone());
        Ok(cell)
    }

    /// Shows all who have a policy what it says now; whoever changed it has written that first.
    pub(super) fn show_policy(&self, name: &Name) {
        let cells = self.policies.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cell) = cells.get(name) else { return };
        match self.rules(name) {
            Ok(rules) => cell.set(rules),
            Err(error) => {
                self.metrics.cache.disk_errors.inc();
                tracing::error!(%error, policy = &**name, "a policy cannot be read");
            }
        }
    }

    /// Stores a policy that Postgres brings, unless it cannot be compiled and what is there can.
    /// `full`: whatever is there, for after a restore revisions start from below.
    pub(super) fn store_policy(&self, full: bool, row: &PolicyRow) -> Result<(), StoreError> {
        match self.try_compile(&row.policy) {
            Ok(_) if full => self.store.replace_policy(row),
            Ok(_) => self.store.put_policy(row),
            Err(problems) => {
                self.refused(&row.policy.name, &problems);
                let known = self.store.policy(&row.policy.name)?;
                let holds = known.is_some_and(|known| self.try_compile(&known.policy).is_ok());
                if holds { Ok(()) } else { self.store.replace_policy(row) }
            }
        }
    }

    fn try_compile(&self, policy: &Policy) -> Result<Rules, Vec<PolicyProblem>> {
        let mut ids = self.policies.ids.lock().unwrap_or_else(PoisonError::into_inner);
        Rules::compile(policy, &mut ids)
    }

    fn compile(&self, policy: &Policy) -> Option<Rules> {
        match self.try_compile(policy) {
            Ok(rules) => {
                if rules.on_undecidable == OnUndecidable::Allow {
                    tracing::warn!(
                        policy = &*policy.name,
                        "this policy fails open: what cannot be decided is let through"
                    );
                }
                Some(rules)
            }
            Err(problems) => {
                self.refused(&policy.name, &problems);
                None
            }
        }
    }

    fn refused(&self, name: &str, problems: &[PolicyProblem]) {
        self.metrics.cache.policies_refused.inc();
        let problem = problems.first().map(ToString::to_string);
        let faults = problems.len();
        tracing::error!(
            policy = name,
            problem,
            faults,
            "a policy in Postgres cannot be used: what held before holds on, and where nothing \
             did, nobody who has it can be decided; mend it with `gatepost policy apply`"
        );
    }
}
