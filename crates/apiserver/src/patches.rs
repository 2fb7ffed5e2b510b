//! The bodies of PATCH.

use gate::PatchKind;
use http::HeaderMap;
use object::{Reason, Status};
use schema::{FieldValidation, Kind, PatchForm};
use serde_json::Value;

use crate::negotiate::{self, Media};
use crate::{body, cbor};

/// What custom resources know: a schema has no strategies to merge by.
const CUSTOM_PATCHES: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// Which patch a body is, and how it is written.
pub(crate) fn kind(kind: &Kind, headers: &HeaderMap, cbor: bool) -> Result<(PatchKind, Media), Status> {
    match negotiate::content_type(headers) {
        "application/json-patch+json" => Ok((PatchKind::Json, Media::Json)),
        "application/merge-patch+json" => Ok((PatchKind::Merge, Media::Json)),
        "application/strategic-merge-patch+json" if kind.custom.is_none() => {
            Ok((PatchKind::Strategic, Media::Json))
        }
        "application/apply-patch+yaml" => Ok((PatchKind::Apply, Media::Yaml)),
        "application/apply-patch+cbor" if cbor => Ok((PatchKind::Apply, Media::Cbor)),
        _ if kind.custom.is_none() => {
            // Upstream's router knows the patches of what it serves itself.
            let words = "415: Unsupported Media Type";
            Err(Status::of_no_resource(Reason::UnsupportedMediaType, words))
        }
        _ => {
            let more = if cbor { ", application/apply-patch+cbor" } else { "" };
            Err(body::unsupported(&format!("{CUSTOM_PATCHES}{more}")))
        }
    }
}

/// A patch, and what is wrong with it that can be lived with.
pub(crate) fn read(
    how: PatchKind,
    encoding: Media,
    text: &[u8],
    mode: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let form = match how {
        PatchKind::Json => PatchForm::Json,
        PatchKind::Merge => PatchForm::Merge,
        PatchKind::Strategic => PatchForm::Strategic,
        PatchKind::Apply => return configuration(encoding, text, mode),
    };
    schema::read_patch(form, text, mode).map_err(|error| Status::from(&error))
}

/// What is applied: an object, in YAML or CBOR.
fn configuration(
    encoding: Media,
    text: &[u8],
    mode: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let read = match encoding {
        Media::Cbor => cbor::decode(text).map(|value| (value, Vec::new())),
        _ => body::yaml_with_repeats(text).map(|(value, told)| {
            // Upstream's reader of configurations says so, and its reader of bodies does not.
            let told = told.into_iter().map(|told| format!("error converting YAML to JSON: {told}"));
            (value, told.collect())
        }),
    };
    let what = if encoding == Media::Cbor { "CBOR" } else { "YAML" };
    let (document, repeats) =
        read.map_err(|why| Status::bad_request(format!("error decoding {what}: {why}")))?;
    if !document.is_object() && !document.is_null() {
        let noun = schema::go::noun(&document);
        return Err(Status::bad_request(format!(
            "error decoding {what}: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {noun} into Go value of type \
             map[string]interface {{}}"
        )));
    }
    match mode {
        FieldValidation::Ignore => Ok((document, Vec::new())),
        FieldValidation::Strict if !repeats.is_empty() => {
            Err(Status::bad_request(format!("error strict decoding YAML: {}", repeats.join(", "))))
        }
        _ => Ok((document, repeats)),
    }
}
