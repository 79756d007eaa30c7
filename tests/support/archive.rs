//! Tar archives made member by member, hostile ones too: nothing here checks what it writes.

const BLOCK: usize = 512;

/// A header before it is written; the defaults are a plain file of root's.
pub struct Member<'a> {
    pub kind: u8,
    pub name: &'a [u8],
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub body: &'a [u8],
    /// What the size field says, where that is not the length of the body.
    pub size: Option<u64>,
}

impl Default for Member<'_> {
    fn default() -> Self {
        Member { kind: b'0', name: b"", link: b"", mode: 0o644, uid: 0, gid: 0, mtime: 1000, body: b"", size: None }
    }
}

/// An archive without its end mark.
#[derive(Clone, Default)]
pub struct Archive(pub Vec<u8>);

impl Archive {
    pub fn new() -> Archive {
        Archive::default()
    }

    pub fn member(mut self, member: Member) -> Archive {
        self.0.extend_from_slice(&header(&member));
        self.blocks(member.body)
    }

    pub fn file(self, name: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Archive {
        self.member(Member { name: name.as_ref(), body: body.as_ref(), ..Member::default() })
    }

    pub fn directory(self, name: &str) -> Archive {
        self.member(Member { kind: b'5', name: name.as_bytes(), mode: 0o755, ..Member::default() })
    }

    pub fn symlink(self, name: &str, link: &str) -> Archive {
        self.member(Member {
            kind: b'2',
            name: name.as_bytes(),
            link: link.as_bytes(),
            mode: 0o777,
            ..Member::default()
        })
    }

    pub fn hard_link(self, name: &str, link: &str) -> Archive {
        self.member(Member { kind: b'1', name: name.as_bytes(), link: link.as_bytes(), ..Member::default() })
    }

    /// Records for the member that follows.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Archive {
        let body: Vec<u8> = records.iter().flat_map(|(name, value)| record(name, value)).collect();
        self.member(Member { kind: b'x', name: b"PaxHeader", body: &body, ..Member::default() })
    }

    /// Anything, filled up to whole blocks.
    pub fn blocks(mut self, bytes: &[u8]) -> Archive {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// The whole archive.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

/// A GNU header with its checksum; a name that is too long is cut.
pub fn header(member: &Member) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |offset: usize, bytes: &[u8], most: usize| {
        let length = bytes.len().min(most);
        block[offset..offset + length].copy_from_slice(&bytes[..length]);
    };
    put(0, member.name, 100);
    put(100, format!("{:07o}\0", member.mode).as_bytes(), 8);
    put(108, format!("{:07o}\0", member.uid).as_bytes(), 8);
    put(116, format!("{:07o}\0", member.gid).as_bytes(), 8);
    put(124, format!("{:011o}\0", member.size.unwrap_or(member.body.len() as u64)).as_bytes(), 12);
    put(136, format!("{:011o}\0", member.mtime).as_bytes(), 12);
    put(156, &[member.kind], 1);
    put(157, member.link, 100);
    put(257, b"ustar  \0", 8);
    checksum(&mut block);
    block
}

/// Sets a header's checksum.
pub fn checksum(block: &mut [u8; BLOCK]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn record(name: &str, value: &[u8]) -> Vec<u8> {
    let rest = name.len() + value.len() + 3;
    let length = (1..).find(|digits| (rest + digits).to_string().len() == *digits).expect("a length has some digits");
    [format!("{} {name}=", rest + length).as_bytes(), value, b"\n"].concat()
}
