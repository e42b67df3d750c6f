//! `schema`: JSON Schemas of the file formats, for editors.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use kaizen_registry::schema::Format;
use serde_json::{Value, json};

use crate::{Exit, output::table, session::Session};

/// `schema …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic schema
  kaizen-agentic schema schedule > schedule.schema.json
  kaizen-agentic schema --write schemas")]
pub(crate) struct Args {
    /// Format to print the schema of; without it the formats are listed
    #[arg(value_parser = format, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write the schemas of all formats into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "format")]
    write: Option<PathBuf>,
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match (args.format, args.write) {
        (Some(format), _) => session.output.data(&format.schema(), text)?,
        (None, Some(folder)) => {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            for format in Format::ALL {
                let file = folder.join(format.name()).with_extension("json");
                fs::write(&file, text(&format.schema()) + "\n")
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
            session.output.say(format_args!(
                "{} schemas in {}",
                Format::ALL.len(),
                folder.display()
            ));
        }
        (None, None) => {
            let listed =
                Format::ALL.map(|format| json!({"name": format.name(), "title": format.title()}));
            session.output.data(&listed.as_slice(), |_| {
                table(
                    ["NAME", "TITLE"],
                    Format::ALL.map(|format| [format.name().to_owned(), format.title().to_owned()]),
                )
            })?;
        }
    }
    Ok(Exit::Ok)
}

fn text(schema: &Value) -> String {
    format!("{schema:#}")
}

fn format(name: &str) -> Result<Format, String> {
    let found = Format::ALL.into_iter().find(|format| format.name() == name);
    found.ok_or_else(|| format!("use one of {}", Format::ALL.map(Format::name).join(", ")))
}
