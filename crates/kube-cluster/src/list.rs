//! Lists of all objects of a kind, page by page. A list is complete or an error: nothing is concluded from a part.

use crate::answer::{ApiError, InvalidAnswer};
use crate::api::Api;
use crate::decode;
use crate::known::{Listing, Shared};
use crate::page;
use crate::path;
use crate::watched::Watched;

/// Lists everything. When the token of a page has expired, because the pages came too slowly, everything is asked for anew in
/// one piece, as client-go does: the rest of a newer list would leave out objects that moved between the parts.
pub(crate) async fn list(api: &Api, watched: &Watched, version: &str, known: &Shared) -> Result<Listing, ApiError> {
    match pages(api, watched, version, known).await {
        Err(error) if error.is_expired() => {
            tracing::info!(kind = %watched.kind, "a list took too long; listing in one piece");
            let text = api.page(&path::list(watched, version, false, None)).await?;
            let mut listing = Listing::default();
            add(&mut listing, &text, watched, known)?;
            Ok(listing)
        }
        listed => listed,
    }
}

async fn pages(api: &Api, watched: &Watched, version: &str, known: &Shared) -> Result<Listing, ApiError> {
    let mut listing = Listing::default();
    let mut token: Option<String> = None;
    loop {
        let text = api.page(&path::list(watched, version, true, token.as_deref())).await?;
        token = add(&mut listing, &text, watched, known)?;
        if token.is_none() {
            return Ok(listing);
        }
    }
}

/// Adds a page, and returns the token of the next one.
fn add(listing: &mut Listing, text: &[u8], watched: &Watched, known: &Shared) -> Result<Option<String>, InvalidAnswer> {
    let metadata = page::read(text, |object| {
        let head = decode::head(watched.kind, &object)?;
        listing.keys.insert(head.key.clone());
        // An object of a known version is not decoded: after a restart of the API server ten thousand pods are listed
        // again, and few have changed.
        // Locked for one object at a time: the writer of statuses looks up versions meanwhile.
        if !known.lock().has(&head) {
            let read = decode::object(watched.kind, object);
            listing.changed.push((head, read));
        }
        Ok(())
    })?;
    let position = metadata.resource_version;
    if position.is_empty() {
        return Err(InvalidAnswer::NoVersion);
    }
    if listing.position.is_empty() {
        listing.position = position;
    // Pages of one list have one version. Objects that moved between two versions would be in none of the pages, or in
    // both.
    } else if listing.position != position {
        return Err(InvalidAnswer::Mixed);
    }
    Ok(metadata.r#continue.filter(|token| !token.is_empty()))
}
