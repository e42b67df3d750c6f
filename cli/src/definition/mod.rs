//! `definition …`: the documents of the mesh, of every kind.

mod apply;
mod change;
mod compare;
mod diff;
mod history;
mod lint;
mod memory;
mod reference;
mod show;

use clap::Subcommand;
use kaizen_proto::id::EngagementSlug;

use crate::{Exit, session::Session};
use reference::Reference;

pub(crate) use apply::read_sources;
pub(crate) use memory::CellView;
pub(crate) use show::all;

/// `definition …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A document is named as apply prints it: activitydefinition/ID, eventtype/NAME
or engagement/SLUG. An id alone is that of an ActivityDefinition.

Example:
  kaizen-agentic definition apply -f definitions/
  kaizen-agentic definition list")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create or change definitions, event types and engagements: all of them, or none
    #[command(after_help = "\
Example:
  kaizen-agentic definition apply -f definitions/ -f event-types.yaml --dry-run
  kaizen-agentic definition apply -f . --prune --engagement coulomb-loop")]
    Apply(apply::Args),
    /// Show one document, as it stands or as it stood
    #[command(after_help = "\
Example:
  kaizen-agentic definition get low-success-rate-review -o yaml
  kaizen-agentic definition get eventtype/kaizen.metrics.recorded")]
    Get {
        /// Its id, or KIND/NAME
        #[arg(value_name = "DOCUMENT")]
        document: Reference,
        /// The revision to show; without it, the latest
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        revision: Option<u64>,
    },
    /// List all definitions
    #[command(after_help = "\
Example:
  kaizen-agentic definition list")]
    List,
    /// List the revisions of a document: when, by whom, and what changed
    #[command(after_help = "\
Example:
  kaizen-agentic definition history low-success-rate-review")]
    History(history::Args),
    /// List what its rules and its trigger remember for each key, and what they have suppressed
    #[command(after_help = "\
Example:
  kaizen-agentic definition memory calm-review --suppressed")]
    Memory(memory::Args),
    /// Show what differs between two revisions, or between files and what stands; exit 1 where something does
    #[command(after_help = "\
Example:
  kaizen-agentic definition diff low-success-rate-review --from 5
  kaizen-agentic definition diff -f definitions/")]
    Diff(diff::Args),
    /// Check files without a mesh: every mistake, and what is most likely a slip
    #[command(after_help = "\
Example:
  kaizen-agentic definition lint --strict -f definitions/")]
    Lint(lint::Args),
    /// Store the document of an earlier revision as a new one
    #[command(after_help = "\
Example:
  kaizen-agentic definition rollback low-success-rate-review --to 5")]
    Rollback(change::RollbackArgs),
    /// Show where a definition and its shadow differ in what they ordered, since both are in effect
    #[command(after_help = "\
Example:
  kaizen-agentic definition compare low-success-rate-review
  kaizen-agentic definition compare nightly --from 2026-11-20 --fail-on-change")]
    Compare(compare::Args),
    /// Put a shadow in the place of the live definition of its name
    #[command(after_help = "\
Example:
  kaizen-agentic definition promote low-success-rate-review --dry-run")]
    Promote(change::PromoteArgs),
    /// Take documents out of effect: all of them, or none; revisions, ticks and tasks stay
    #[command(after_help = "\
Example:
  kaizen-agentic definition delete low-success-rate-review
  kaizen-agentic definition delete eventtype/shop.sold engagement/shop")]
    Delete(change::DeleteArgs),
    /// Let a definition act on triggers again
    #[command(after_help = "\
Example:
  kaizen-agentic definition enable low-success-rate-review")]
    Enable(change::EnableArgs),
    /// Stop a definition from acting on triggers
    #[command(after_help = "\
Example:
  kaizen-agentic definition disable low-success-rate-review")]
    Disable(change::EnableArgs),
}

/// Whether the mesh still is as the caller saw it.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Expected {
    /// Refuse unless the document stands at this revision; 0: unless it does not stand
    #[arg(long, value_name = "N")]
    expect_revision: Option<u64>,
}

/// What else goes, with an apply.
#[derive(Debug, Clone, clap::Args)]
struct Prune {
    /// Also remove what names the engagement and is not among the files
    #[arg(long, requires = "engagement")]
    prune: bool,
    /// The engagement that --prune is about
    #[arg(long, value_name = "SLUG", requires = "prune")]
    engagement: Option<EngagementSlug>,
}

impl Prune {
    fn slug(&self) -> String {
        let slug = self.engagement.as_ref().filter(|_| self.prune);
        slug.map_or_else(String::new, ToString::to_string)
    }
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Apply(args) => apply::run(session, &args),
        Verb::Get { document, revision } => show::get(session, &document, revision),
        Verb::List => show::list(session),
        Verb::History(args) => history::run(session, args),
        Verb::Memory(args) => memory::run(session, args),
        Verb::Diff(args) => diff::run(session, args),
        Verb::Lint(args) => lint::run(session, &args),
        Verb::Rollback(args) => change::rollback(session, &args),
        Verb::Compare(args) => compare::run(session, &args),
        Verb::Promote(args) => change::promote(session, &args),
        Verb::Delete(args) => change::delete(session, &args),
        Verb::Enable(args) => change::set_enabled(session, &args, true),
        Verb::Disable(args) => change::set_enabled(session, &args, false),
    }
}
