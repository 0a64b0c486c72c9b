//! One pod's tunnels take all the windows that they can get, and another pod's tunnel has its whole window. Alone in its program,
//! because the counter of small windows is the process's.

mod pods;

use hbone::Tunnel;
use http::HeaderMap;
use pods::Proxy;
use pods::calm::{counted, pods};
use pods::dialer::{Dialer, local};
use ztunnel::proxy::SOURCE_TUNNELS;

/// The series that counts tunnels that got a smaller window than they asked for.
const SMALL_WINDOWS: &str = "strake_budget_exceeded_total{budget=\"windows\",owner=\"pod\"}";

#[test]
fn a_pod_whose_tunnels_take_all_windows_leaves_its_neighbour_a_whole_one() {
    let Some((client, server, state)) = pods("windows") else { return };
    let _proxy = Proxy::start_on(1, state, &[&client, &server], |_| {});

    local(async {
        let connect = async |tunnel: &Tunnel, to: &str| tunnel.connect(to, HeaderMap::new()).await.unwrap();
        let dialer = Dialer::new(&client, client.ip, &server);
        let mut held = Vec::new();
        while counted(SMALL_WINDOWS) == 0.0 {
            assert!(held.len() < SOURCE_TUNNELS, "no window was small");
            held.push(dialer.tunnel().await.unwrap());
            // The window is counted before the proxy answers.
            connect(&held[held.len() - 1], "10.77.0.2:8080").await;
        }
        let before = counted(SMALL_WINDOWS);

        let neighbour = Dialer::new(&server, server.ip, &client).tunnel().await.unwrap();
        connect(&neighbour, "10.77.0.1:8080").await;
        let of_the_neighbour = counted(SMALL_WINDOWS) - before;
        held.push(dialer.tunnel().await.unwrap());
        connect(&held[held.len() - 1], "10.77.0.2:8080").await;

        assert_eq!(of_the_neighbour, 0.0, "the neighbour has a small window");
        assert_eq!(counted(SMALL_WINDOWS) - before, 1.0, "the flood has no small window");
    });
}
