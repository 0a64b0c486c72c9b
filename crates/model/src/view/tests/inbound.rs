//! Targets of CONNECTs.

use super::*;

fn request<'a>(local: &'a Workload, authority: &'a Authority, connection: &str) -> InboundRequest<'a> {
    InboundRequest {
        local,
        authority,
        connection_dst: addr(connection),
        forwarded_host: None,
        localhost_app_tunnel: true,
    }
}

fn accept(state: &State, local: &Workload, authority: &str) -> Result<InboundTarget, InboundError> {
    inbound(state, &request(local, &authority.parse().unwrap(), "10.0.0.1:15008"))
}

#[test]
fn authorities_are_addresses_or_names_and_always_have_a_port() {
    assert_eq!("10.0.0.1:80".parse(), Ok(Authority::Address(addr("10.0.0.1:80"))));
    assert_eq!("[::ffff:10.0.0.1]:80".parse(), Ok(Authority::Address(addr("10.0.0.1:80"))));
    assert_eq!("web.ns:80".parse(), Ok(Authority::Hostname { hostname: "web.ns".into(), port: 80 }));
    for wrong in [
        "10.0.0.1",
        "web",
        ":80",
        "web:",
        "web:99999",
        "web:+80",
        "10.0.0.1:+80",
        "[::1]:+80",
        "web:-0",
        "web: 80",
        "[::1",
        "a/b:80",
        "",
    ] {
        let error = wrong.parse::<Authority>().unwrap_err();
        assert_eq!(error.to_string(), format!("invalid CONNECT address {wrong}"));
    }
}

#[test]
fn a_connect_for_the_own_address_goes_to_the_application_with_the_client_s_address() {
    let local = workload("a", "10.0.0.1");

    let target = accept(&state(vec![local.clone()], vec![service("svc", "ns", VIP)]), &local, "10.0.0.1:8080").unwrap();

    assert_eq!((target.dial, target.source), (addr("10.0.0.1:8080"), SourceAddress::Client));
    assert_eq!(target.policy_destination, addr("10.0.0.1:8080"));
    assert_eq!(target.proxy_header, None);
    assert_eq!(target.service.unwrap().name, "svc");
}

#[test]
fn a_connect_for_somebody_else_is_refused_with_400() {
    let local = workload("a", "10.0.0.1");

    let error =
        accept(&state(vec![local.clone(), workload("b", "10.0.0.2")], vec![]), &local, "10.0.0.2:80").unwrap_err();

    assert_eq!((error.status(), error.to_string()), (400, "ip mismatch: 10.0.0.1 != 10.0.0.2".into()));
}

#[test]
fn a_waypoint_may_speak_for_those_that_name_it() {
    let local =
        Workload { services: member_of("waypoint.ns.svc.cluster.local", &[]), ..workload("waypoint", "10.0.0.1") };
    let (_, waypoint_service) = waypoint();
    let svc = Service { waypoint: waypoint_ref(WAYPOINT), ..service("svc", "ns", VIP) };
    let guarded = Workload { waypoint: waypoint_ref("/10.0.0.1"), ..workload("b", "10.0.0.2") };
    let state = state(vec![local.clone(), guarded, workload("c", "10.0.0.3")], vec![svc, waypoint_service]);

    assert_eq!(accept(&state, &local, "10.96.0.1:80").unwrap().dial, addr("10.0.0.1:80"));
    assert_eq!(accept(&state, &local, "10.0.0.2:80").unwrap().dial, addr("10.0.0.1:80"));
    assert_eq!(accept(&state, &local, "10.0.0.3:80").unwrap_err().status(), 400);
}

#[test]
fn a_connect_for_a_service_s_name_goes_to_its_target_port() {
    let local = workload("a", "10.0.0.1");
    let own = Workload { services: member_of("svc.ns.svc.cluster.local", &[(80, 9090)]), ..local.clone() };
    let state = state(vec![local.clone()], vec![service("svc", "ns", VIP)]);

    assert_eq!(accept(&state, &local, "svc.ns.svc.cluster.local:80").unwrap().dial, addr("10.0.0.1:8080"));
    assert_eq!(accept(&state, &own, "svc.ns.svc.cluster.local:80").unwrap().dial, addr("10.0.0.1:9090"));
    let port = accept(&state, &local, "svc.ns.svc.cluster.local:81").unwrap_err();
    assert_eq!(
        (port.status(), port.to_string()),
        (503, "requested service svc.ns.svc.cluster.local:81 found, but cannot resolve port".into())
    );
    let unknown = accept(&state, &local, "other.ns.svc.cluster.local:80").unwrap_err();
    assert_eq!(unknown.to_string(), "no service or workload for hostname: other.ns.svc.cluster.local");
}

#[test]
fn a_connect_that_leads_to_the_proxy_is_refused() {
    let local = workload("a", "10.0.0.1");

    let error = accept(&state(vec![local.clone()], vec![]), &local, "10.0.0.1:15008").unwrap_err();

    assert_eq!((error.status(), error.to_string()), (503, "attempted recursive call to ourselves".into()));
}

#[test]
fn an_application_tunnel_takes_any_address_at_its_port() {
    let tunnel = |protocol| Some(ApplicationTunnel { protocol, port: Some(15088) });
    let plain = Workload { application_tunnel: tunnel(TunnelProtocol::NONE), ..workload("a", "10.0.0.1") };
    let proxied = Workload { application_tunnel: tunnel(TunnelProtocol::PROXY), ..workload("a", "10.0.0.1") };
    let state = state(vec![], vec![service("svc", "ns", VIP)]);

    let target = accept(&state, &plain, "10.9.9.9:80").unwrap();
    assert_eq!((target.dial, target.proxy_header), (addr("10.0.0.1:15088"), None));

    let target = accept(&state, &proxied, "10.9.9.9:80").unwrap();
    assert_eq!(target.dial, addr("127.0.0.1:15088"));
    assert_eq!(target.source, SourceAddress::Fixed("127.0.0.1".parse().unwrap()));
    assert_eq!(target.proxy_header, Some(addr("10.9.9.9:80")));
    assert_eq!(target.policy_destination, addr("10.0.0.1:15088"));

    let by_name = accept(&state, &proxied, "svc.ns.svc.cluster.local:80").unwrap();
    assert_eq!(by_name.proxy_header, Some(addr("10.96.0.1:80")));
    let authority = "10.9.9.9:80".parse().unwrap();
    let away = InboundRequest { localhost_app_tunnel: false, ..request(&proxied, &authority, "10.0.0.1:15008") };
    assert_eq!(inbound(&state, &away).unwrap().dial, addr("10.0.0.1:15088"));
}

#[test]
fn the_service_of_a_plaintext_connection_is_guessed_from_its_port() {
    let services = ["svc", "other"].map(|name| Membership {
        service: NamespacedHostname::new("ns", format!("{name}.ns.svc.cluster.local")),
        ports: Ports::default(),
    });
    let local = Workload { services: services.into_iter().collect(), ..workload("a", "10.0.0.1") };
    let other = Service { ports: [(90, 9090)].into_iter().collect(), ..service("other", "ns", "10.96.0.2") };
    let state = state(vec![local.clone()], vec![service("svc", "ns", VIP), other]);
    let name = |service: Option<Arc<Service>>| service.map(|s| s.name.to_string());

    assert_eq!(name(destination_service(&state, &local, addr("10.0.0.1:9090"))).as_deref(), Some("other"));
    assert_eq!(name(destination_service(&state, &local, addr("10.0.0.1:1"))), None);
    let authority = "10.0.0.1:9090".parse().unwrap();
    let named = InboundRequest {
        forwarded_host: Some("svc.ns.svc.cluster.local"),
        ..request(&local, &authority, "10.0.0.1:15008")
    };
    assert_eq!(name(inbound(&state, &named).unwrap().service).as_deref(), Some("svc"));
}
