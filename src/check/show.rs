//! What `stacker check` prints.

use schemars::JsonSchema;
use serde::Serialize;

use super::Need;
use crate::holder::Tier;
use crate::worker::message::Probed;

/// All that was found out.
#[derive(Debug, Default)]
pub struct Report {
    /// What kind of sandbox a build has.
    pub tier: Option<Tier>,
    findings: Vec<Finding>,
}

/// One of them.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// What builds may need.
    name: &'static str,
    /// Whether it is there.
    ok: bool,
    /// What was seen.
    found: String,
    /// What cannot be had without it.
    needed_for: &'static str,
    /// What mends it; null where nothing is to be mended.
    mend: Option<String>,
    #[serde(skip)]
    need: Need,
}

/// All of it as JSON.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "stacker check")]
pub struct Checked<'a> {
    /// The kind of sandbox that builds have; `none` also where that was not found out.
    sandbox: String,
    /// What was tried.
    probes: &'a [Finding],
}

impl Report {
    /// Adds what was found out; the first failure of a need is the last word on it.
    pub fn add(&mut self, need: Need, ok: bool, found: String) {
        if self.findings.iter().any(|finding| finding.need == need && (ok || !finding.ok)) {
            return;
        }
        self.findings.retain(|finding| finding.need != need);
        let mend = (!ok).then(|| need.mend());
        self.findings.push(Finding { name: need.name(), ok, found, needed_for: need.needed_for(), mend, need });
        self.findings.sort_by_key(|finding| Need::ALL.iter().position(|need| *need == finding.need));
    }

    /// Adds what a probe says.
    pub fn add_probed(&mut self, probed: Probed) {
        self.add(probed.need, probed.ok, probed.found);
    }

    /// 1 when no `run` can work.
    pub fn exit_code(&self) -> i32 {
        let runs = self.findings.iter().any(|finding| finding.need == Need::Run && finding.ok);
        i32::from(!runs)
    }

    /// For a person, or as JSON.
    pub fn show(&self, json: bool) -> String {
        let tier = self.tier.map_or_else(|| "none".to_owned(), |tier| tier.to_string());
        if json {
            return crate::text::json(&Checked { sandbox: tier, probes: &self.findings });
        }
        let mut text = String::new();
        for Finding { name, ok, found, needed_for, mend, .. } in &self.findings {
            let mark = if *ok { "ok" } else { "--" };
            text += &format!("{mark}  {name:<15} {found}\n");
            if let Some(mend) = mend {
                text += &format!("    {:<15} needed for {needed_for}\n    {:<15} to mend it: {mend}\n", "", "");
            }
        }
        text + &format!("sandbox: {tier}\n")
    }
}
