//! `definition lint`.

use kaizen_registry::lint::{Finding, Level, lint};
use serde::Serialize;

use super::read_sources;
use crate::{
    Exit,
    output::{count, one_line},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A YAML file of one or more documents, a folder of them (with its subfolders), or - for stdin; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<String>,
    /// Fail on warnings, too
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let sources = read_sources(session, &args.files)?;
    let files: Vec<_> = sources
        .iter()
        .map(|source| (source.name.as_str(), source.content.as_str()))
        .collect();
    let findings: Vec<_> = lint(&files).iter().map(FindingView::from).collect();
    let painted = session.output.paints_data();
    session.output.data(&findings, |findings| {
        let lines = findings.iter().map(|finding| finding.line(painted));
        lines.collect()
    })?;
    let of = |level| findings.iter().filter(|one| one.level == level).count();
    let (errors, warnings) = (of("error"), of("warning"));
    session.output.say(format_args!(
        "{}: {}, {}, {}",
        count(files.len(), "file"),
        count(errors, "error"),
        count(warnings, "warning"),
        count(of("hint"), "hint")
    ));
    let failed = errors > 0 || (args.strict && warnings > 0);
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

#[derive(Serialize)]
struct FindingView {
    file: String,
    line: u64,
    column: u64,
    level: &'static str,
    check: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        let at = finding.diagnostic.clone();
        Self {
            file: at.file,
            line: at.line,
            column: at.column,
            level: finding.level.as_str(),
            check: finding.check,
            path: at.path,
            message: at.message,
            hint: at.hint,
        }
    }
}

impl FindingView {
    /// `a.yaml:3:7: warning: trigger.event_type: …; did you mean …? [unregistered-type]`
    fn line(&self, painted: bool) -> String {
        let (file, line, column) = (one_line(&self.file), self.line, self.column);
        let path = match self.path.as_str() {
            "" => String::new(),
            path => format!("{path}: "),
        };
        let hint = self.hint.as_ref().map(|hint| format!("; {hint}"));
        let (message, hint) = (&self.message, hint.unwrap_or_default());
        let (level, check) = (self.level(painted), self.check);
        format!("{file}:{line}:{column}: {level}: {path}{message}{hint} [{check}]\n")
    }

    fn level(&self, painted: bool) -> String {
        let sgr = match self.level {
            _ if !painted => return self.level.to_owned(),
            level if level == Level::Error.as_str() => "1;31",
            level if level == Level::Warning.as_str() => "33",
            _ => "36",
        };
        format!("\x1b[{sgr}m{}\x1b[0m", self.level)
    }
}
