//! How the Decider's questions are answered: from the database at once, else by a thread that reads listings.

use crate::database::LayerInfo;
use crate::decide::{Answer, Question, Status};
use crate::digest::TreeDigest;
use crate::error::{Error, Result};
use crate::graph::{LayerIndex, NodeBase, NodeSource};
use crate::inputs::base_place;
use crate::listing::{Kind, Listing};
use crate::pins::Pin;
use crate::place::StackerDir;
use crate::progress::Event;
use crate::reason::Files;

use super::running::outcome;
use super::site::{Learned, Lost, Site};
use super::{Execution, Message, lookup};

impl Execution<'_> {
    /// Asks questions, with all results that they ask for pinned before they are looked up.
    pub(super) fn ask_all(&mut self, questions: Vec<Question>) -> Result<()> {
        let site = self.site.clone();
        let results = questions.iter().filter_map(|question| match question {
            Question::Result(key) => Some(Pin::Result(*key)),
            _ => None,
        });
        site.pins.pin(results.collect::<Vec<_>>(), || {
            // Not from an earlier state of the database, of which things may have gone meanwhile.
            if self.database.end_reading()? {
                self.database.begin_reading()?;
            }
            questions.into_iter().try_for_each(|question| self.ask(question))
        })
    }

    /// Answers at once what the database knows, and lets a thread find out the rest.
    pub(super) fn ask(&mut self, question: Question) -> Result<()> {
        if let Some(answer) = self.known(&question)? {
            self.decider.answered(question, answer);
            return Ok(());
        }
        let chain = match &question {
            Question::Newest(chain)
            | Question::Tree { chain, .. }
            | Question::Content { chain, .. }
            | Question::Place { chain, .. } => chain.clone(),
            Question::Result(_) => return Ok(()),
        };
        let (blobs, unpacked) = (self.blobs(&chain)?, self.unpacked.contains(&chain));
        let (site, sender) = (self.site.clone(), self.sender.clone());
        self.waiting += 1;
        std::thread::spawn(move || {
            let listings = match unpacked {
                true => site.have_listings_with_files(&chain, &blobs),
                false => site.have_listings(&chain, &blobs),
            };
            let answer = listings.and_then(|learned| find_out(&site, &question, learned));
            // The receiver goes only when the build is over.
            drop(sender.send(Message::Answered(question, answer)));
        });
        Ok(())
    }

    pub(super) fn known(&mut self, question: &Question) -> Result<Option<Answer>> {
        Ok(match question {
            Question::Result(key) => {
                let result = self.database.result(key)?;
                self.took.extend(result.as_ref().map(|result| (*key, result.seconds)));
                self.labels.extend(result.as_ref().and_then(|result| Some((*key, result.labels.clone()?))));
                Some(Answer::Result(result.as_ref().map(outcome)))
            }
            Question::Newest(chain) => {
                let mut newest = i64::MIN;
                for diff_id in &chain.0 {
                    let Some(layer) = self.database.layer(diff_id)? else { return Ok(None) };
                    newest = newest.max(layer.newest.rounded_up());
                }
                Some(Answer::Newest(newest))
            }
            Question::Tree { chain, .. } => {
                let text = self.database.answer(&chain.id(), &text(question))?;
                text.and_then(|text| lookup::tree_from_text(&text))
            }
            Question::Content { chain, .. } => {
                let text = self.database.answer(&chain.id(), &text(question))?;
                text.and_then(|text| lookup::content_from_text(&text))
            }
            Question::Place { chain, .. } => {
                let text = self.database.answer(&chain.id(), &text(question))?;
                text.and_then(|text| lookup::place_from_text(&text))
            }
        })
    }

    pub(super) fn answered(&mut self, question: Question, answer: Result<(Answer, Learned), Lost>) -> Result<()> {
        let (answer, learned) = match answer {
            Ok(answered) => answered,
            Err(Lost::Evicted(chain)) => {
                // The layer that asked is among those that are decided anew; it will ask again.
                return self.evicted(chain, |decider| decider.forget(&question));
            }
            Err(Lost::Error(error)) => {
                self.failure.get_or_insert(error);
                return Ok(());
            }
        };
        self.learn(&learned)?;
        if let (
            Some(remembered),
            Question::Tree { chain, .. } | Question::Content { chain, .. } | Question::Place { chain, .. },
        ) = (lookup::to_text(&answer), &question)
        {
            self.database.put_answer(&chain.id(), &text(&question), &remembered)?;
        }
        let asked = (question.clone(), answer.clone());
        for layer in self.decider.answered(question, answer) {
            let message = self.no_answer(layer, &asked);
            debug_assert_eq!(self.decider.status(layer), Status::Failed);
            self.site.tell(Event::Failed { layer: self.name(layer), message: message.clone() });
            self.failures.insert(layer, message);
        }
        Ok(())
    }

    fn no_answer(&self, layer: LayerIndex, (question, answer): &(Question, Answer)) -> String {
        match question {
            Question::Content { path, .. } => {
                let NodeBase::LayerTar { layer: from, .. } = &self.graph[layer].base else { return String::new() };
                let why = if *answer == Answer::NoFile { "is not a file" } else { "no such file" };
                let (from, place) = (self.name(*from), base_place(&self.graph[layer]));
                let place = self.options.texts.position(&place);
                format!("the tar base stacker://{from}{path}: {why} in layer {from} ({place})")
            }
            Question::Tree { path, .. } => {
                let imports = self.graph[layer].imports.iter();
                let from = imports.filter_map(|import| match &import.source {
                    NodeSource::Layer { layer, path: found } if found == path => Some(self.name(*layer)),
                    _ => None,
                });
                let from = from.into_iter().next().unwrap_or_default();
                format!("stacker://{from}{path}: no such file or directory in layer {from}")
            }
            Question::Place { dest, .. } => format!("{dest} leads to a name that is not UTF-8"),
            _ => "no answer".to_owned(),
        }
    }
}

/// How a question is named in the database, beside its chain id.
fn text(question: &Question) -> String {
    match question {
        Question::Tree { path, .. } => format!("tree {path}"),
        Question::Content { path, .. } => format!("content {path}"),
        Question::Place { dest, basename, kind, contents, .. } => {
            format!("place {kind:?} {contents} {} {}", crate::text::escape(dest.as_bytes()), basename)
        }
        Question::Newest(_) | Question::Result(_) => String::new(),
    }
}

fn find_out(site: &Site, question: &Question, learned: Learned) -> Result<(Answer, Learned), Lost> {
    let answer = match question {
        Question::Newest(chain) => return Ok(newest(site, chain)?),
        Question::Tree { chain, path } => {
            let (answer, entries) = lookup::tree(&site.listings(chain)?, path)?;
            if let Answer::Tree { tree, .. } = &answer {
                crate::resolve::keep_tree_listing(&site.stacker, tree, &entries)?;
            }
            answer
        }
        Question::Content { chain, path } => lookup::content(&site.listings(chain)?, path)?,
        Question::Place { chain, dest, basename, kind, contents } => {
            lookup::place(&site.listings(chain)?, dest, basename, *kind, *contents)?
        }
        Question::Result(_) => return Err(Error::Machine("results are not looked up here".to_owned()).into()),
    };
    Ok((answer, learned))
}

/// The newest time of a base image's layers, from their listings.
fn newest(site: &Site, chain: &crate::digest::Chain) -> Result<(Answer, Learned)> {
    let mut learned = Vec::new();
    for diff_id in &chain.0 {
        let listing = Listing::open(&site.stacker.listing(diff_id))?;
        let mut info = LayerInfo { newest: listing.newest()?, entries: 0, bytes: 0, tar_bytes: 0 };
        for entry in listing.entries() {
            info.entries += 1;
            if let Kind::File { size, .. } = entry?.kind {
                info.bytes += size;
            }
        }
        learned.push((*diff_id, info));
    }
    let newest = learned.iter().map(|(_, info)| info.newest.rounded_up()).max().unwrap_or(i64::MIN);
    Ok((Answer::Newest(newest), learned))
}

/// How two import trees differ, where both listings were kept.
pub fn changed_files(stacker: &StackerDir, old: TreeDigest, new: TreeDigest) -> Option<Files> {
    let open = |tree| Listing::open(&stacker.tree_listing(&tree)).ok();
    Files::between(&open(old)?, &open(new)?, false).ok()
}
