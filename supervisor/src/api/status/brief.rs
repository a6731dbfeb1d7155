//! Why a call is refused is told in headers. No window of HTTP/2 holds those back from whoever does not read them, and
//! clients take some KiB of them: so they are small, whatever of its request is quoted to a caller.

use http::{HeaderMap, HeaderValue};
use tonic::Status;
use tonic_types::FieldViolation;
use tracing::warn;

use super::Label;
use crate::problem::cut;

/// The longest sentence, in bytes.
const SENTENCE: usize = 1 << 10;

/// The longest name or value in the details.
const VALUE: usize = 256;

/// All fields that hold what they may not, and what is wrong with them. Whoever has mended those asks again.
const VIOLATIONS: usize = 5 << 10;

/// A sentence as it is written in headers: each byte may take three there.
const WRITTEN: usize = 3 * (SENTENCE + "…".len());

/// The details as they are written: in base64, with the sentence. Clients take 16 KiB of headers (hyper's default).
const DETAILS: usize = 11 << 10;

pub(super) fn sentence(text: &str) -> String {
    cut(text, SENTENCE)
}

pub(super) fn label((label, value): Label) -> (String, String) {
    (label.to_owned(), cut(&value, VALUE))
}

/// As many of them as there is room for; the last says how many more there are.
pub(super) fn violations(all: impl ExactSizeIterator<Item = (String, String)>) -> Vec<FieldViolation> {
    let (mut told, mut room, many) = (Vec::new(), VIOLATIONS, all.len());
    for (field, description) in all {
        let (field, description) = (cut(&field, VALUE), sentence(&description));
        match room.checked_sub(field.len() + description.len()) {
            Some(rest) => room = rest,
            None => {
                let more = format!("{} more are wrong", many - told.len());
                told.push(FieldViolation::new("…", more));
                break;
            }
        }
        told.push(FieldViolation::new(field, description));
    }
    told
}

/// Cuts what an answer says in these headers of why it is none, if that is longer than ours are: others may quote, too.
pub(in crate::api) fn keep_brief(headers: &mut HeaderMap) {
    let exceeds = |name, most| headers.get(name).is_some_and(|value: &HeaderValue| value.len() > most);
    let (sentence_exceeds, details_exceed) =
        (exceeds(Status::GRPC_MESSAGE, WRITTEN), exceeds(Status::GRPC_STATUS_DETAILS, DETAILS));
    if details_exceed {
        headers.remove(Status::GRPC_STATUS_DETAILS);
    }
    if !sentence_exceeds {
        return;
    }
    let status = Status::from_header_map(headers).unwrap_or_else(|| Status::unknown(""));
    headers.remove(Status::GRPC_MESSAGE);
    let brief = Status::new(status.code(), sentence(status.message()));
    if let Err(status) = brief.add_header(headers) {
        warn!(%status, "a sentence is no header");
    }
}

#[cfg(test)]
mod tests {
    use supervisor_core::ids::Name;
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::api::status::{Fault, Refusal};

    /// What HTTP/2 counts of headers (RFC 9113, section 6.5.2).
    fn size(headers: &HeaderMap) -> usize {
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    }

    fn written(status: &Status) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        headers
    }

    #[test]
    fn whatever_a_refusal_quotes_clients_take_its_headers() {
        for text in ["x".repeat(1 << 20), "%".repeat(1 << 20), "é".repeat(1 << 19)] {
            let fault = Fault::new(&text, &text, &text);
            let refusals = [
                Refusal::from(Name::new(&text).unwrap_err()),
                Refusal::RequestIdReused(text.clone()),
                Refusal::InvalidCursor(text.clone()),
                Refusal::Storage(text.clone()),
                Refusal::InvalidFields(vec![fault; 100]),
            ];
            for refusal in refusals {
                let status = Status::from(refusal.clone());
                let mut headers = written(&status);
                assert!(size(&headers) < 16 << 10, "{} of {:?}", size(&headers), refusal.reason());
                let before = headers.clone();
                keep_brief(&mut headers);
                assert_eq!(headers, before, "our own are brief");
                assert!(status.get_details_error_info().is_some());
            }
        }
    }

    #[test]
    fn of_many_faults_the_first_are_told_and_how_many_more_there_are() {
        let faults = (0..200).map(|at| Fault::new(format!("spec.env.V{at}"), "it is empty", "write a value"));
        let status = Status::from(Refusal::InvalidFields(faults.collect()));
        let told = status.get_details_bad_request().unwrap().field_violations;
        let (last, first) = told.split_last().unwrap();
        assert_eq!(first[0].field, "spec.env.V0");
        assert_eq!(last.description, format!("{} more are wrong", 200 - first.len()));
        assert!(first.len() > 50, "{}", first.len());
    }

    #[test]
    fn what_others_quote_is_cut_and_the_rest_of_the_headers_stays() {
        let mut headers = written(&Status::not_found("é%".repeat(1 << 20)));
        headers.insert("x-other", HeaderValue::from_static("stays"));
        keep_brief(&mut headers);
        assert!(size(&headers) < 4 << 10);
        let status = Status::from_header_map(&headers).unwrap();
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().starts_with("é%é%") && status.message().ends_with('…'));
        assert_eq!(headers["x-other"], "stays");
        let mut large = written(&Status::with_details(Code::Aborted, "no", vec![7; 1 << 20].into()));
        keep_brief(&mut large);
        assert_eq!(Status::from_header_map(&large).unwrap().message(), "no");
        assert!(size(&large) < 1 << 10);
    }
}
