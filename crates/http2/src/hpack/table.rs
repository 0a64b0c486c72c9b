//! The two tables that an index may point into: the static one, which all know, and the dynamic one, which
//! a peer fills (RFC 7541, sections 2.3 and 4). It reads nothing; see `decode`.

use super::Error;
use std::collections::VecDeque;
use std::rc::Rc;

/// Capacity of the dynamic table, bytes: the default of `SETTINGS_HEADER_TABLE_SIZE`, which we leave alone.
pub(super) const LIMIT_BYTES: usize = 4096;
/// Overhead that an entry counts beside its name and value, bytes (section 4.1). Header lists are counted alike.
pub(crate) const FIELD_BYTES: usize = 32;

/// Appendix A. Its first has index 1.
static STATIC: [(&str, &str); 61] = [
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

/// Index of a field in the static table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Name and value.
    Field(usize),
    /// The name only, with other values.
    Name(usize),
}

/// Finds the first that is the same, or else the first whose name is.
pub(super) fn find(name: &[u8], value: &[u8]) -> Option<Found> {
    let first = STATIC.iter().position(|(known, _)| known.as_bytes() == name)?;
    // Entries of one name are neighbours.
    let mut same = STATIC[first..].iter().take_while(|(known, _)| known.as_bytes() == name);
    Some(match same.position(|(_, known)| known.as_bytes() == value) {
        Some(at) => Found::Field(first + at + 1),
        None => Found::Name(first + 1),
    })
}

/// The name of an entry.
///
/// Entries that refer to another's name share it. Were it copied, a peer could have 4 KiB copied for each
/// two octets that it sends. Every entry counts all of its name, so sharing only ever holds less.
#[derive(Clone, Debug)]
pub(super) enum Name {
    Static(&'static str),
    Shared(Rc<[u8]>),
}

impl Name {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Static(name) => name.as_bytes(),
            Self::Shared(name) => name,
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: Name,
    value: Box<[u8]>,
}

impl Entry {
    fn size_bytes(&self) -> usize {
        self.name.as_bytes().len() + self.value.len() + FIELD_BYTES
    }
}

/// Both tables, as one direction of one connection has them.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest comes first.
    entries: VecDeque<Entry>,
    /// Of all entries; never more than `limit_bytes`.
    size_bytes: usize,
    limit_bytes: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), size_bytes: 0, limit_bytes: LIMIT_BYTES }
    }

    /// Name and value at an index. There is none at 0.
    pub(super) fn field(&self, index: usize) -> Result<(&[u8], &[u8]), Error> {
        let at = index.checked_sub(1).ok_or(Error::Index { index })?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(at - STATIC.len()).ok_or(Error::Index { index })?;
        Ok((entry.name.as_bytes(), &entry.value))
    }

    /// The name at an index. It stays what it is when its entry is evicted.
    pub(super) fn name(&self, index: usize) -> Result<Name, Error> {
        let at = index.checked_sub(1).ok_or(Error::Index { index })?;
        if let Some((name, _)) = STATIC.get(at) {
            return Ok(Name::Static(name));
        }
        let entry = self.entries.get(at - STATIC.len()).ok_or(Error::Index { index })?;
        Ok(entry.name.clone())
    }

    /// Adds an entry. One that is larger than the table leaves the table empty, and is no error (section 4.4).
    pub(super) fn insert(&mut self, name: Name, value: &[u8]) {
        let size = name.as_bytes().len() + value.len() + FIELD_BYTES;
        // Before the insertion (section 4.4): an entry may refer to a name that its own insertion evicts.
        self.evict_to(self.limit_bytes.saturating_sub(size));
        if size <= self.limit_bytes {
            self.size_bytes += size;
            self.entries.push_front(Entry { name, value: value.into() });
        }
    }

    /// Follows a dynamic table size update (section 6.3).
    pub(super) fn resize(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > LIMIT_BYTES {
            return Err(Error::SizeUpdateTooLarge { bytes });
        }
        self.limit_bytes = bytes;
        self.evict_to(bytes);
        Ok(())
    }

    /// Drops the oldest entries until the rest has at most `bytes`.
    fn evict_to(&mut self, bytes: usize) {
        while self.size_bytes > bytes {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size_bytes -= oldest.size_bytes();
        }
    }

    #[cfg(test)]
    pub(super) fn size_bytes(&self) -> usize {
        assert_eq!(self.size_bytes, self.entries.iter().map(Entry::size_bytes).sum::<usize>());
        self.size_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(name: &[u8]) -> Name {
        Name::Shared(name.into())
    }

    #[test]
    fn the_static_table_begins_at_one_and_ends_at_sixty_one() {
        let table = Table::new();

        assert_eq!(table.field(0), Err(Error::Index { index: 0 }));
        assert_eq!(table.field(1), Ok((&b":authority"[..], &b""[..])));
        assert_eq!(table.field(16), Ok((&b"accept-encoding"[..], &b"gzip, deflate"[..])));
        assert_eq!(table.field(61), Ok((&b"www-authenticate"[..], &b""[..])));
        assert_eq!(table.field(62), Err(Error::Index { index: 62 }));
        assert_eq!(table.field(usize::MAX), Err(Error::Index { index: usize::MAX }));
        assert!(table.name(0).is_err() && table.name(61).is_ok() && table.name(62).is_err());
    }

    #[test]
    fn every_static_field_is_found_where_it_is() {
        for (at, (name, value)) in STATIC.iter().enumerate() {
            assert_eq!(find(name.as_bytes(), value.as_bytes()), Some(Found::Field(at + 1)));
        }
        assert_eq!(find(b":status", b"503"), Some(Found::Name(8)));
        assert_eq!(find(b":method", b"CONNECT"), Some(Found::Name(2)));
        assert_eq!(find(b"traceparent", b""), None);
        assert_eq!(find(b"", b""), None);
    }

    #[test]
    fn the_newest_entry_has_the_lowest_index() {
        let mut table = Table::new();
        table.insert(shared(b"a"), b"1");
        table.insert(shared(b"b"), b"2");

        assert_eq!(table.field(62), Ok((&b"b"[..], &b"2"[..])));
        assert_eq!(table.field(63), Ok((&b"a"[..], &b"1"[..])));
        assert_eq!(table.field(64), Err(Error::Index { index: 64 }));
        assert_eq!(table.size_bytes(), 68);
    }

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let mut table = Table::new();
        for octet in 0..200 {
            table.insert(shared(&[octet]), &[octet; 31]);
            assert_eq!(table.size_bytes(), 64 * (usize::from(octet) + 1).min(64));
        }

        assert_eq!(table.field(62), Ok((&[199][..], &[199; 31][..])));
        assert_eq!(table.field(62 + 63), Ok((&[136][..], &[136; 31][..])));
        assert!(table.field(62 + 64).is_err());
    }

    #[test]
    fn an_entry_may_fill_the_table_and_one_more_octet_empties_it() {
        let mut table = Table::new();
        table.insert(shared(b"a"), b"1");
        table.insert(shared(b"n"), &[0; LIMIT_BYTES - FIELD_BYTES - 1]);
        assert_eq!((table.size_bytes(), table.entries.len()), (LIMIT_BYTES, 1));

        table.insert(shared(b"n"), &[0; LIMIT_BYTES - FIELD_BYTES]);

        assert_eq!((table.size_bytes(), table.entries.len()), (0, 0));
    }

    #[test]
    fn a_smaller_table_evicts_and_stays_small_until_it_may_grow() {
        let mut table = Table::new();
        for octet in 0..4 {
            table.insert(shared(&[octet]), b"");
        }

        table.resize(2 * 33 + 32).unwrap();
        assert_eq!(table.field(63), Ok((&[2][..], &b""[..])));
        assert_eq!(table.size_bytes(), 66);
        table.resize(0).unwrap();
        table.insert(shared(b""), b"");
        assert_eq!(table.size_bytes(), 0);
        table.resize(LIMIT_BYTES).unwrap();
        table.insert(shared(b""), b"");
        assert_eq!(table.size_bytes(), 32);
        assert_eq!(table.resize(LIMIT_BYTES + 1), Err(Error::SizeUpdateTooLarge { bytes: LIMIT_BYTES + 1 }));
    }

    #[test]
    fn who_refers_to_a_name_shares_it_even_when_that_evicts_it() {
        let mut table = Table::new();
        table.insert(shared(&[b'n'; 3000]), b"old");
        let name = table.name(62).unwrap();
        let Name::Shared(before) = name.clone() else { panic!("not shared") };

        table.insert(name, b"new");

        assert_eq!(table.entries.len(), 1);
        assert_eq!(table.field(62), Ok((&[b'n'; 3000][..], &b"new"[..])));
        assert!(matches!(table.name(62), Ok(Name::Shared(after)) if Rc::ptr_eq(&before, &after)));
    }
}
