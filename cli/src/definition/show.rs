//! `definition get|list`.

use kaizen_proto::{admin, from_pb_timestamp, subject::RegistryKind};
use serde::Serialize;
use serde_json::{Value, json};

use super::reference::Reference;
use crate::{
    Exit,
    admin::{Admin, PAGE_SIZE, client},
    output::{fields, instant, table},
    session::Session,
    tick::PausedView,
};

/// A definition as it stands comes with its trigger, its lane and its slots; anything else as the
/// document that REGISTRY holds.
pub(super) fn get(
    session: &Session,
    document: &Reference,
    revision: Option<u64>,
) -> anyhow::Result<Exit> {
    match (document.kind, revision) {
        (RegistryKind::Definition, None) => get_definition(session, document.name.clone()),
        _ => get_document(session, document, revision),
    }
}

fn get_document(
    session: &Session,
    document: &Reference,
    revision: Option<u64>,
) -> anyhow::Result<Exit> {
    let request = admin::GetDocumentRequest {
        document: Some(document.wire()),
        revision: revision.unwrap_or(0),
    };
    let document = Admin::run(session, "definition get", |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient);
        let response = definitions.get_document(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    let view = DocumentView::from(document);
    session.output.data(&view, |view| {
        let head = table(
            ["KIND", "NAME", "REVISION", "STORED", "BY", "STATE"],
            [view.row()],
        );
        let document = (!view.document.is_null())
            .then(|| serde_saphyr::to_string(&view.document).unwrap_or_default());
        format!("{head}\n\n{}", document.unwrap_or_default())
    })?;
    Ok(Exit::Ok)
}

/// One revision of a document.
#[derive(Serialize)]
struct DocumentView {
    kind: String,
    name: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_at: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
    latest: bool,
    /// Null where the revision is a deletion.
    document: Value,
}

impl From<admin::Document> for DocumentView {
    fn from(document: admin::Document) -> Self {
        Self {
            document: read_json(&document.document),
            kind: document.kind,
            name: document.name,
            revision: document.revision,
            stored_at: document.stored_at.as_ref().and_then(from_pb_timestamp),
            by: document.by,
            latest: document.latest,
        }
    }
}

impl DocumentView {
    fn row(&self) -> [String; 6] {
        let state = match (self.document.is_null(), self.latest) {
            (true, _) => "deleted",
            (false, true) => "latest",
            (false, false) => "superseded",
        };
        let by = if self.by.is_empty() { "-" } else { &self.by };
        [
            self.kind.clone(),
            self.name.clone(),
            self.revision.to_string(),
            instant(self.stored_at),
            by.to_owned(),
            state.to_owned(),
        ]
    }
}

/// A document as JSON: null where there is none, a text where it is no JSON.
pub(super) fn read_json(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

fn get_definition(session: &Session, id: String) -> anyhow::Result<Exit> {
    let request = admin::GetDefinitionRequest { id };
    let definition = Admin::run(session, "definition get", |admin| async move {
        let mut definitions = client!(admin, definitions_client, DefinitionsClient);
        let response = definitions.get(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    let view = DefinitionView::from(definition);
    session.output.data(&view, |view| {
        let head = table(HEADER, [view.row()]);
        let document = serde_saphyr::to_string(&view.document);
        let paused = view.paused.as_ref().map(PausedView::for_people);
        let slots = fields([
            ("Slots", view.schedule.clone()),
            ("Paused", paused.unwrap_or_default()),
        ]);
        let gap = if slots.is_empty() { "" } else { "\n" };
        format!("{head}\n{gap}{slots}\n{}", document.unwrap_or_default())
    })?;
    Ok(Exit::Ok)
}

pub(super) fn list(session: &Session) -> anyhow::Result<Exit> {
    let definitions = Admin::run(session, "definition list", |admin| async move {
        all(&admin).await
    })?;
    if definitions.is_empty() {
        session
            .output
            .say("no definitions yet; apply some with `kaizen-agentic definition apply -f DIR`");
    }
    session.output.data(&definitions, |definitions| {
        table(HEADER, definitions.iter().map(DefinitionView::row))
    })?;
    Ok(Exit::Ok)
}

/// Every definition of the mesh.
pub(crate) async fn all(admin: &Admin) -> anyhow::Result<Vec<DefinitionView>> {
    let mut definitions = client!(admin, definitions_client, DefinitionsClient);
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = admin::ListDefinitionsRequest {
            page_size: PAGE_SIZE,
            page_token,
        };
        let page = definitions.list(request).await;
        let page = page.map_err(|status| admin.refused(&status))?.into_inner();
        found.extend(page.definitions.into_iter().map(DefinitionView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

const HEADER: [&str; 6] = ["ID", "ENABLED", "TRIGGER", "LANE", "REVISION", "APPLIED"];

#[derive(Serialize)]
pub(crate) struct DefinitionView {
    pub(super) id: String,
    pub(super) enabled: bool,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_at: Option<jiff::Timestamp>,
    trigger: String,
    /// When its slots are, in plain English.
    #[serde(skip_serializing_if = "String::is_empty")]
    schedule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PausedView>,
    lane: String,
    document: Value,
}

impl From<admin::Definition> for DefinitionView {
    fn from(definition: admin::Definition) -> Self {
        Self {
            enabled: definition.enabled,
            revision: definition.revision,
            applied_at: definition.applied_at.as_ref().and_then(from_pb_timestamp),
            trigger: definition.trigger,
            schedule: definition.schedule,
            paused: definition.paused.map(PausedView::from),
            lane: definition.lane,
            document: read_json(&definition.document),
            id: definition.id,
        }
    }
}

impl DefinitionView {
    /// The document as JSON.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    fn row(&self) -> [String; 6] {
        [
            self.id.clone(),
            match self.paused {
                Some(_) if self.enabled => "paused".to_owned(),
                _ => self.enabled.to_string(),
            },
            self.trigger.clone(),
            self.lane.clone(),
            self.revision.to_string(),
            instant(self.applied_at),
        ]
    }
}
