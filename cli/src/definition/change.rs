//! `definition enable|disable|rollback|promote|delete`.

use kaizen_proto::{
    admin::{DeleteRequest, PromoteRequest, RollbackRequest, SetEnabledRequest},
    id::DefinitionId,
};

use super::{Expected, apply, reference::Reference, show::DefinitionView};
use crate::{
    Exit,
    admin::{Admin, client},
    args::by,
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct EnableArgs {
    /// Its id
    id: DefinitionId,
    #[command(flatten)]
    expected: Expected,
}

#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// Its id, or KIND/NAME
    #[arg(value_name = "DOCUMENT")]
    document: Reference,
    /// The revision whose document is to stand again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    to: u64,
    /// Check it and say what would happen, but store nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    expected: Expected,
}

#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    /// Their ids, or KIND/NAME
    #[arg(value_name = "DOCUMENT", required = true)]
    documents: Vec<Reference>,
    /// Say what would happen, but store nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    expected: Expected,
}

#[derive(Debug, clap::Args)]
pub(super) struct PromoteArgs {
    /// The name that it shares with its shadow
    #[arg(value_name = "NAME")]
    id: DefinitionId,
    /// Check it and say what would happen, but store nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse unless the shadow stands at this revision
    #[arg(long, value_name = "N")]
    expect_revision: Option<u64>,
}

pub(super) fn set_enabled(
    session: &Session,
    args: &EnableArgs,
    enabled: bool,
) -> anyhow::Result<Exit> {
    let request = SetEnabledRequest {
        id: args.id.to_string(),
        enabled,
        expected_revision: args.expected.expect_revision,
        by: by(),
    };
    let verb = if enabled {
        "definition enable"
    } else {
        "definition disable"
    };
    let definition = Admin::run(session, verb, |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient);
        let response = definitions.set_enabled(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    session
        .output
        .data(&DefinitionView::from(definition), |view| {
            let state = if view.enabled { "enabled" } else { "disabled" };
            format!("activitydefinition/{} {state}", view.id)
        })?;
    Ok(Exit::Ok)
}

pub(super) fn rollback(session: &Session, args: &RollbackArgs) -> anyhow::Result<Exit> {
    let request = RollbackRequest {
        document: Some(args.document.wire()),
        to: args.to,
        expected_revision: args.expected.expect_revision,
        validate_only: args.dry_run,
        by: by(),
    };
    let response = Admin::run(session, "definition rollback", |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient);
        let response = definitions.rollback(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    apply::warn(session, &response.warnings);
    apply::show(session, response.result.into_iter().collect(), args.dry_run)?;
    Ok(Exit::Ok)
}

pub(super) fn promote(session: &Session, args: &PromoteArgs) -> anyhow::Result<Exit> {
    let request = PromoteRequest {
        id: args.id.to_string(),
        expected_revision: args.expect_revision,
        validate_only: args.dry_run,
        by: by(),
    };
    let response = Admin::run(session, "definition promote", |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient);
        let response = definitions.promote(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    apply::warn(session, &response.warnings);
    apply::show(session, response.results, args.dry_run)?;
    if !args.dry_run {
        session.output.say(
            "take `mode: shadow` out of its file: as it is, the next apply makes a shadow again",
        );
    }
    Ok(Exit::Ok)
}

pub(super) fn delete(session: &Session, args: &DeleteArgs) -> anyhow::Result<Exit> {
    let request = DeleteRequest {
        documents: args.documents.iter().map(Reference::wire).collect(),
        expected_revision: args.expected.expect_revision,
        validate_only: args.dry_run,
        by: by(),
    };
    let response = Admin::run(session, "definition delete", |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient);
        let response = definitions.delete(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    apply::warn(session, &response.warnings);
    let stood = response.results.first().map_or(0, |first| first.stood);
    apply::show(session, response.results, args.dry_run)?;
    if let ([document], false) = (args.documents.as_slice(), args.dry_run) {
        session.output.say(format_args!(
            "its revisions, ticks and tasks stay; `kaizen-agentic definition rollback {document} --to {stood}` brings it back"
        ));
    } else if !args.dry_run {
        session.output.say(
            "their revisions, ticks and tasks stay; `kaizen-agentic definition rollback` brings one back",
        );
    }
    Ok(Exit::Ok)
}
