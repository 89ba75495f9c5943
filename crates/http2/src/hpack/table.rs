//! Names, the static table (RFC 7541, appendix A) and the dynamic one.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;
use http::HeaderName;

/// What a field is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Status,
    Field(HeaderName),
    /// No name that HTTP/2 allows (upper case, an unknown pseudo-header), of so many bytes. Its message is malformed; the connection goes
    /// on, and both tables count the line.
    Malformed(usize),
}

impl Name {
    pub(crate) fn read(text: &[u8]) -> Self {
        match text {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":status" => Self::Status,
            _ => HeaderName::from_lowercase(text).map_or(Self::Malformed(text.len()), Self::Field),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Path => 5,
            Self::Method | Self::Scheme | Self::Status => 7,
            Self::Authority => 10,
            Self::Field(name) => name.as_str().len(),
            Self::Malformed(len) => *len,
        }
    }
}

/// A line of either table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: Name,
    pub(crate) value: Bytes,
}

impl Line {
    /// What it counts for (RFC 7541, 4.1).
    pub(crate) fn size(&self) -> usize {
        self.name.len() + self.value.len() + LINE_BYTES
    }
}

/// What a line counts for beside its text.
pub(crate) const LINE_BYTES: usize = 32;

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

static LINES: LazyLock<Vec<Line>> = LazyLock::new(|| {
    let line = |(name, value): &(&str, &'static str)| Line {
        name: Name::read(name.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
    };
    STATIC.iter().map(line).collect()
});

/// The number of a name in the static table, for whoever writes.
pub(crate) fn number(name: &HeaderName) -> Option<u8> {
    #[expect(clippy::disallowed_types, reason = "nobody walks it")]
    static NUMBERS: LazyLock<std::collections::HashMap<HeaderName, u8>> = LazyLock::new(|| {
        let numbered = (1..=STATIC.len() as u8).zip(LINES.iter());
        let named = numbered.rev().filter_map(|(number, line)| match &line.name {
            Name::Field(name) => Some((name.clone(), number)),
            _ => None,
        });
        named.collect()
    });
    NUMBERS.get(name).copied()
}

/// The lines that a peer had put into its table, the newest first.
#[derive(Debug)]
pub(crate) struct Table {
    lines: VecDeque<Line>,
    size: usize,
    /// What the peer has set.
    size_max: usize,
    /// What it may set.
    bound: usize,
}

impl Table {
    pub(crate) fn new(bound: usize) -> Self {
        Self { lines: VecDeque::new(), size: 0, size_max: bound, bound }
    }

    /// Finds a line by its number, counted from one over both tables.
    pub(crate) fn get(&self, number: usize) -> Option<&Line> {
        let number = number.checked_sub(1)?;
        LINES.get(number).or_else(|| self.lines.get(number.checked_sub(LINES.len())?))
    }

    /// Sets the size; false when it is more than was offered.
    pub(crate) fn resize(&mut self, size_max: usize) -> bool {
        self.size_max = size_max.min(self.bound);
        self.shrink(0);
        size_max <= self.bound
    }

    pub(crate) fn insert(&mut self, line: Line) {
        let size = line.size();
        self.shrink(size);
        // A line that is larger than the table empties it and is not kept (RFC 7541, 4.4).
        if size <= self.size_max {
            self.size += size;
            self.lines.push_front(line);
        }
    }

    fn shrink(&mut self, room: usize) {
        while self.size + room > self.size_max {
            let Some(oldest) = self.lines.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}
