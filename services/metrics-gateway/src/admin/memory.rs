//! What definitions keep between triggers, as LEDGER has it.

use async_nats::jetstream::Message;
use kaizen_messaging::read;
use kaizen_proto::{
    admin::{MemoryCell, MemoryRequest, MemoryResponse},
    id::DefinitionId,
    pb_timestamp, stream, subject,
};
use kaizen_registry::memory::Cell;
use tonic::Status;

use super::{Admin, page_size, paging, refusal};

impl Admin {
    /// A page of the cells of a definition; of one that is gone as well, while they last.
    pub(super) async fn memory_of(&self, request: MemoryRequest) -> Result<MemoryResponse, Status> {
        let id: DefinitionId = request
            .id
            .parse()
            .map_err(|error| refusal::invalid("id", error))?;
        let start = paging::start(&request.page_token, None)?;
        let limit = page_size(request.page_size);
        let filter = subject::states_of_definition(&id);
        let (messages, more) = read::page(&self.nats, stream::LEDGER, &filter, start, false, limit)
            .await
            .map_err(refusal::unavailable)?;
        let cells = messages.iter().filter_map(stored);
        let cells = cells.filter(|cell| cell.suppressed > 0 || !request.suppressed_only);
        Ok(MemoryResponse {
            cells: cells.collect(),
            next_page_token: paging::next(&messages, more),
        })
    }
}

/// `None` for a cell that was forgotten.
fn stored(message: &Message) -> Option<MemoryCell> {
    let stored: Cell = serde_json::from_slice(&message.payload).ok()?;
    cell(&stored)
}

/// A cell, as the API says it.
pub(super) fn cell(cell: &Cell) -> Option<MemoryCell> {
    Some(MemoryCell {
        state: serde_json::to_string(&cell.state).ok()?,
        rule: cell.rule.clone().unwrap_or_default(),
        key: cell.key.clone(),
        touched: Some(pb_timestamp(cell.touched)),
        suppressed: cell.suppressed,
        suppressed_at: cell.suppressed_at.map(pb_timestamp),
    })
}
