//! What differs from run to run, out of the way of a snapshot.

/// `d` stands for a digit, `x` for a hexadecimal one, everything else for itself.
const SHAPES: [(&str, &str); 4] = [
    ("dddd-dd-ddTdd:dd:ddZ", "[TIME]"),
    ("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", "[UUID]"),
    ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "[HASH]"),
    ("127.0.0.1:ddddd", "127.0.0.1:[PORT]"),
];

/// Names in place of times, ids and ports.
pub(crate) fn redacted(text: &str) -> String {
    let mut rest = text;
    let mut redacted = String::new();
    while let Some(first) = rest.chars().next() {
        let found = SHAPES.iter().find(|(shape, _)| begins_as(rest, shape));
        let (len, shown) = match found {
            Some((shape, name)) => (shape.len(), *name),
            None => (first.len_utf8(), &rest[..first.len_utf8()]),
        };
        redacted.push_str(shown);
        rest = &rest[len..];
    }
    redacted
}

fn begins_as(text: &str, shape: &str) -> bool {
    let same = |(byte, class): (u8, u8)| match class {
        b'd' => byte.is_ascii_digit(),
        b'x' => byte.is_ascii_hexdigit(),
        literal => byte == literal,
    };
    text.len() >= shape.len() && text.bytes().zip(shape.bytes()).all(same)
}

#[test]
fn times_ids_and_ports_are_redacted_and_the_rest_stays() {
    let text = "at 2026-11-22T10:00:00Z … 6fa459ea-ee8a-5ca4-894e-db77e160355e.0 on \
                http://127.0.0.1:40001 and 127.0.0.1:1";
    let expected = "at [TIME] … [UUID].0 on http://127.0.0.1:[PORT] and 127.0.0.1:1";
    assert_eq!(redacted(text), expected);
}
