//! Names of units in object paths, where systemd escapes them.

/// Undoes the escaping of unit names in object paths: `_` and two hexadecimal digits stand for any byte but letters and digits.
pub(super) fn unescape(label: &str) -> String {
    let mut bytes = Vec::with_capacity(label.len());
    let mut rest = label.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'_').then(|| tail.get(..2)).flatten();
        match code
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A unit's name as the last part of its object path.
pub(super) fn escape(unit: &str) -> String {
    let mut label = String::with_capacity(unit.len());
    for (index, byte) in unit.bytes().enumerate() {
        match byte {
            b'0'..=b'9' if index > 0 => label.push(char::from(byte)),
            b'a'..=b'z' | b'A'..=b'Z' => label.push(char::from(byte)),
            _ => label.push_str(&format!("_{byte:02x}")),
        }
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_read_from_object_paths() {
        assert_eq!(
            unescape("tqserver_2dapi_2eusers_4012_2eservice"),
            "tqserver-api.users@12.service"
        );
        assert_eq!(unescape("a_zz_"), "a_zz_");
        assert_eq!(
            escape("tqserver-a\\x2db.slice"),
            "tqserver_2da_5cx2db_2eslice"
        );
        for unit in ["tqserver-api.users@12.2.socket", "7.slice", "ü.service"] {
            assert_eq!(unescape(&escape(unit)), unit);
        }
    }
}
