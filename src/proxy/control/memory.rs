//! The last route table, as the next proxy finds it: so that it serves although no manager tells it what.

use serde::{Deserialize, Serialize};

use crate::route::RouteTable;
use crate::wire::TABLE_FORMAT;

/// A table as it is written.
#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    table: &'a RouteTable,
}

/// Read first: what follows may be of a format that we can not read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Read {
    table: RouteTable,
}

/// Why a table can not be served by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("it is of format {0} and not {TABLE_FORMAT}")]
    Format(u32),
    #[error("it is no route table: {0}")]
    Content(#[from] serde_json::Error),
}

/// `table` for the next proxy, without what only the manager of this one wants to hear.
pub(crate) fn write(table: &RouteTable) -> Result<Vec<u8>, serde_json::Error> {
    let table = RouteTable {
        serial: 0,
        draining: Vec::new(),
        development: None,
        ..table.clone()
    };
    serde_json::to_vec(&Written {
        format: TABLE_FORMAT,
        table: &table,
    })
}

/// The table that the last proxy has written.
pub(crate) fn read(text: &[u8]) -> Result<RouteTable, MemoryError> {
    let Format { format } = serde_json::from_slice(text)?;
    if format != TABLE_FORMAT {
        return Err(MemoryError::Format(format));
    }
    let Read { table } = serde_json::from_slice(text)?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::table::tests::board;

    #[test]
    fn a_table_is_remembered_without_its_serial_and_what_drained() {
        let mut table = board(&["/", "/api"]).published().table.clone();
        table.serial = 7;
        let read = read(&write(&table).unwrap()).unwrap();
        assert_eq!(read.serial, 0);
        table.serial = 0;
        assert_eq!(read, table);
    }

    #[test]
    fn what_is_of_another_format_or_broken_is_refused() {
        let other = read(br#"{"format": 99, "table": "new"}"#).unwrap_err();
        assert!(matches!(other, MemoryError::Format(99)));
        for broken in ["", "{}", "[1]", "\0\0", r#"{"format": 1, "table": {}}"#] {
            let error = read(broken.as_bytes()).unwrap_err();
            assert!(matches!(error, MemoryError::Content(_)), "{broken}");
        }
    }
}
