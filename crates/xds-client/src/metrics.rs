//! Counters of the client, with Istio's names.

use metrics::counter;

pub(crate) fn terminated(reason: &'static str) {
    counter!("istio_xds_connection_terminations_total", "reason" => reason).increment(1);
}

pub(crate) fn received(type_url: &str, bytes: usize) {
    let url = type_url.to_owned();
    counter!("istio_xds_message_total", "url" => url.clone()).increment(1);
    counter!("istio_xds_message_bytes_total", "url" => url).increment(u64::try_from(bytes).unwrap_or(u64::MAX));
}
