//! Protobuf's text format, as far as the vectors of the CEL specification use it.

/// A value; a field that is repeated comes several times.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A text in quotes, or several in a row.
    Text(Vec<u8>),
    /// Anything else without blanks: a number, a truth value, the name of an enum value.
    Word(String),
    Message(Message),
}

/// Fields in the order of the text. One that names its type has the type in brackets as name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Message(pub(super) Vec<(String, Value)>);

impl Message {
    pub(super) fn parse(text: &str) -> Self {
        let mut reader = Reader(text);
        let message = reader.fields();
        assert_eq!(reader.peek(), None, "something is left: {:.40}", reader.0);
        message
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Value> {
        let named = self.0.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let named = self.0.iter().find(|(known, _)| known == name);
        named.map(|(_, value)| value)
    }

    /// The messages under `name`.
    pub(super) fn messages(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.all(name).map(move |value| match value {
            Value::Message(message) => message,
            other => panic!("{name} is no message: {other:?}"),
        })
    }

    /// The text under `name`, empty where there is none.
    pub(super) fn text(&self, name: &str) -> String {
        match self.get(name) {
            None => String::new(),
            Some(Value::Text(bytes)) => String::from_utf8(bytes.clone()).unwrap(),
            Some(other) => panic!("{name} is no text: {other:?}"),
        }
    }

    /// The word under `name`.
    pub(super) fn word(&self, name: &str) -> Option<&str> {
        self.get(name).map(|value| match value {
            Value::Word(word) => word.as_str(),
            other => panic!("{name} is no word: {other:?}"),
        })
    }
}

/// What is left of the text.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    /// The next character that means something.
    fn peek(&mut self) -> Option<char> {
        loop {
            self.0 = self.0.trim_start();
            let Some(comment) = self.0.strip_prefix('#') else {
                return self.0.chars().next();
            };
            self.0 = comment.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    fn eat(&mut self, wanted: char) -> bool {
        let eaten = self.peek() == Some(wanted);
        if eaten {
            self.0 = &self.0[wanted.len_utf8()..];
        }
        eaten
    }

    fn expect(&mut self, wanted: char) {
        assert!(self.eat(wanted), "{wanted:?} expected at {:.40}", self.0);
    }

    fn fields(&mut self) -> Message {
        let mut message = Message::default();
        while let Some(next) = self.peek().filter(|next| *next != '}') {
            let name = if next == '[' {
                let end = self.0.find(']').unwrap() + 1;
                self.take(end).to_owned()
            } else {
                self.word()
            };
            let colon = self.eat(':');
            if colon && self.eat('[') {
                while !self.eat(']') {
                    message.0.push((name.clone(), self.value()));
                    self.eat(',');
                }
            } else {
                message.0.push((name, self.value()));
            }
            _ = self.eat(',') || self.eat(';');
        }
        message
    }

    fn value(&mut self) -> Value {
        match self.peek() {
            Some('{') => {
                self.expect('{');
                let message = self.fields();
                self.expect('}');
                Value::Message(message)
            }
            Some('"' | '\'') => {
                let mut bytes = Vec::new();
                while let Some(quote @ ('"' | '\'')) = self.peek() {
                    self.text(quote, &mut bytes);
                }
                Value::Text(bytes)
            }
            _ => Value::Word(self.word()),
        }
    }

    fn take(&mut self, end: usize) -> &'a str {
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn word(&mut self) -> String {
        let part = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
        let end = self.0.find(|c| !part(c)).unwrap_or(self.0.len());
        assert!(end > 0, "a word expected at {:.40}", self.0);
        self.take(end).to_owned()
    }

    fn text(&mut self, quote: char, bytes: &mut Vec<u8>) {
        self.expect(quote);
        loop {
            let c = self.0.chars().next().expect("the text ends");
            self.take(c.len_utf8());
            match c {
                '\\' => self.escape(bytes),
                c if c == quote => return,
                c => bytes.extend(c.to_string().bytes()),
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) {
        let code = self.take(1).chars().next().unwrap();
        let mut number = |digits: usize, radix: u32, first: &str| {
            let valid = self
                .0
                .chars()
                .take(digits)
                .take_while(|c| c.is_digit(radix));
            let taken = self.take(valid.count());
            u32::from_str_radix(&format!("{first}{taken}"), radix).unwrap()
        };
        match code {
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            'f' => bytes.push(0x0c),
            'v' => bytes.push(0x0b),
            'a' => bytes.push(0x07),
            'b' => bytes.push(0x08),
            'x' => bytes.push(number(2, 16, "").try_into().unwrap()),
            '0'..='7' => bytes.push(number(2, 8, &code.to_string()).try_into().unwrap()),
            'u' | 'U' => {
                let digits = if code == 'u' { 4 } else { 8 };
                let c = char::from_u32(number(digits, 16, "")).unwrap();
                bytes.extend(c.to_string().bytes());
            }
            other => bytes.extend(other.to_string().bytes()),
        }
    }
}

#[test]
fn text_format_is_read() {
    let read = Message::parse(
        "# comment\na: 1, b { c: \"x\\n\" '\\377\\x41\\U0001F600' } # more\nb: { [t.com/x.Y] { d: -1.5e3 } }\nl: [1, TWO]",
    );
    let b: Vec<_> = read.messages("b").collect();
    assert_eq!(read.word("a"), Some("1"));
    assert_eq!(
        b[0].get("c"),
        Some(&Value::Text(b"x\n\xffA\xf0\x9f\x98\x80".to_vec()))
    );
    assert_eq!(
        b[1].messages("[t.com/x.Y]").next().unwrap().word("d"),
        Some("-1.5e3")
    );
    assert_eq!(read.all("l").count(), 2);
}
