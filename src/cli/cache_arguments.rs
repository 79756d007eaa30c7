//! The arguments of `stacker cache` and `stacker gc`, as typed.

use clap::{Args, Subcommand, ValueEnum};

use super::{Export, Import};
use crate::database::Status;
use crate::inspect::filter::Sort;

/// `stacker cache`.
#[derive(Subcommand, Debug)]
pub enum Cache {
    /// List the stored results
    Ls(Ls),
    /// Show how two actions differ, and what came out of them
    #[command(long_about = DIFF)]
    Diff {
        /// The first digits of a key, or the name of a layer that has one result
        old: String,
        /// The same of the other
        new: String,
        /// The files of their layers too
        #[arg(long)]
        files: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show where the disk went, by kind and by layer
    #[command(long_about = DU)]
    Du {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what was not used for long, and what nothing refers to
    Gc(Gc),
    /// Look whether everything in the cache is there and right; what is damaged is set aside
    #[command(long_about = VERIFY)]
    Verify {
        /// Read all contents too
        #[arg(long)]
        deep: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the results of layers into one file, for other machines
    Export(Export),
    /// Take the results of such a file
    Import(Import),
    /// Show one action and its result
    Show {
        /// A layer's name, or the first digits of a key
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `stacker cache ls`.
#[derive(Args, Debug)]
pub struct Ls {
    /// Results of layers with this name; `*`, `?` and `[…]` stand for others
    #[arg(long, value_name = "NAME")]
    pub layer: Option<String>,
    /// Results that no build used for so long, such as 30d, 12h or 2w
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<String>,
    /// Results that a build used since then
    #[arg(long, value_name = "AGE")]
    pub newer_than: Option<String>,
    /// Results with more bytes in their files, such as 10MiB
    #[arg(long, value_name = "SIZE")]
    pub larger_than: Option<bytesize::ByteSize>,
    /// Results of these kinds, several or a list (default: present,lost)
    #[arg(long, value_delimiter = ',', value_name = "STATUS")]
    pub status: Vec<StatusFilter>,
    /// What they are sorted by
    #[arg(long, value_name = "WHAT", default_value = "used")]
    pub sort: Sort,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which results are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusFilter {
    /// They are there.
    Present,
    /// Nothing is left of their data.
    Lost,
    /// They went; what they were is known.
    Evicted,
    /// All of these.
    All,
}

impl Ls {
    /// What is asked for.
    pub fn statuses(&self) -> Vec<Status> {
        let one = |status: &StatusFilter| match status {
            StatusFilter::Present => vec![Status::Present],
            StatusFilter::Lost => vec![Status::Lost],
            StatusFilter::Evicted => vec![Status::Evicted],
            StatusFilter::All => vec![Status::Present, Status::Lost, Status::Evicted],
        };
        match self.status.as_slice() {
            [] => vec![Status::Present, Status::Lost],
            some => some.iter().flat_map(one).collect(),
        }
    }
}

/// `stacker cache diff --help`.
const DIFF: &str = "\
Show how two actions differ, field by field, as lines of their encodings; of scripts the lines that differ. With --files
the lists of what their layers hold are compared too, file by file, with both modes, owners, times and contents. Both also
work for results that were evicted.";

/// `stacker cache du --help`.
const DU: &str = "\
Show where the disk went, by kind and by layer. Every file of the store is looked at.

EXCLUSIVE is what is free when the results of a layer are removed and nothing else is, SHARED what they hold together with
others: by hard links, reflinks or snapshots. The total is what is free when the whole store is removed; it does not have
what files outside hold too, such as images in an OCI layout.

On btrfs the metadata of the file system is counted in the share that the store has of all data on it. Of compressed files
their length is counted, as long as that is not more than all data on it.";

/// `stacker cache verify --help`.
const VERIFY: &str = "\
Look whether everything in the cache is there and right: records and the database, listings, changes of layers, their
trees, blobs. Without --deep no content is read: names, types, modes, owners, sizes, times and attributes are compared.

What is damaged is set aside (files: in `damaged` of the stacker directory, until `gc --older-than`), and made again at
once or by the next build that needs it. Builds may run meanwhile: what one of them uses is told, and left to it.

Staged imports have nothing that they could be compared with: with --deep they are set aside, and staged again when they
are needed.

Exit code 0: all is right; 1: something was damaged.";

/// `stacker gc`.
#[derive(Args, Debug)]
#[command(after_help = GC)]
pub struct Gc {
    /// Remove results that no build used for so long, such as 30d, 12h or 2w
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<String>,
    /// Keep what the newest N states of each layer consist of, and remove all other results
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_last: Option<u32>,
    /// Remove what is worth least until the cache holds no more than this, such as 20GiB
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<bytesize::ByteSize>,
    /// Only tell what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// The end of `stacker gc --help`.
const GC: &str = "\
Without --older-than, --keep-last and --max-size only what killed builds left is removed. With several of them, what any
of them takes goes.

With --max-size, first go trees and changes of layers that have a compressed layer, staged imports, and files from
servers: those used longest ago first. Then go whole results, those first whose bytes are worth least: worth is the time
that it would take to build them and what stands on them again, halved for each week without use.

What a running build uses is never taken. Actions, listings and logs of results that went stay, to explain later builds;
all of those together may take 1 GiB, or a tenth of --max-size.";
