//! Client, TLS, token check, authoriser and issuer together, over loopback.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use ca_client::{CertificateSource as _, Client, ClientConfig, SourceError};
use ca_server::{Authoriser, CurrentIssuer, Denial, Issuer, NodeTokens};
use identity::{Caller, Identity, TrustDomain};
use tls::WorkloadCertificate;
use tls::control_plane::{Acceptor, RootSource, Token};
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::Server;

/// Node proxies may have identities of the namespace `shop` when they run on `node-1`.
struct ShopOnNodeOne;

impl Authoriser for ShopOnNodeOne {
    fn authorise(&self, caller: &Caller, requested: &Identity) -> Result<(), Denial> {
        match (caller.node.as_str(), requested.namespace()) {
            ("node-1", "shop") => Ok(()),
            _ => Err(Denial(format!("no pod of {requested} on {}", caller.node))),
        }
    }
}

struct Mesh {
    dir: tempfile::TempDir,
    issuer: CurrentIssuer,
    port: u16,
}

async fn mesh() -> Mesh {
    let dir = tempfile::tempdir().unwrap();
    let issuer = Issuer::open_or_create(&dir.path().join("ca"), TrustDomain::default()).unwrap();
    let names = ["localhost".to_owned()];
    let acceptor = Acceptor::new(issuer.serving_certificate(&names).unwrap()).unwrap();
    let issuer = CurrentIssuer::from(issuer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mesh = Mesh { port: listener.local_addr().unwrap().port(), dir, issuer };
    let path = mesh.write_tokens(&[("node-1", "one"), ("node-2", "two")]);
    let tokens = Arc::new(NodeTokens::open(&path, TrustDomain::default()).unwrap());
    let service = ca_server::service(mesh.issuer.clone(), Arc::new(ShopOnNodeOne));
    let server = Server::builder().layer(ca_server::authenticate(tokens)).add_service(service);
    tokio::spawn(server.serve_with_incoming(xds_server::incoming(
        acceptor,
        listener,
        tls::control_plane::Limits::with_descriptors(None),
    )));
    mesh
}

impl Mesh {
    fn write_tokens(&self, tokens: &[(&str, &str)]) -> std::path::PathBuf {
        let rows: String = tokens
            .iter()
            .map(|(node, token)| {
                let hash: String =
                    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("- {{node: {node}, namespace: istio-system, serviceAccount: ztunnel, sha256: {hash}}}\n")
            })
            .collect();
        let (new, path) = (self.dir.path().join("new"), self.dir.path().join("node-tokens"));
        fs::write(&new, rows).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, &path).unwrap();
        path
    }

    fn client(&self, token: Token) -> Client {
        Client::new(self.config(token))
    }

    fn config(&self, token: Token) -> ClientConfig {
        ClientConfig {
            address: format!("https://localhost:{}", self.port).parse().unwrap(),
            roots: RootSource::Path(self.dir.path().join("ca/root-cert.pem")),
            alternative_host: None,
            token,
            headers: Vec::new(),
            ttl: Duration::from_secs(3600),
            impersonate: true,
        }
    }

    async fn fetch(&self, token: &str, identity: &str) -> Result<WorkloadCertificate, SourceError> {
        self.client(Token::Literal(token.to_owned())).fetch(&identity.parse().unwrap()).await
    }
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn code(result: Result<WorkloadCertificate, SourceError>) -> (Code, String) {
    match result.unwrap_err() {
        SourceError::Refused(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_node_proxy_gets_certificates_of_its_own_pods() {
    let mesh = mesh().await;

    let certificate = mesh.fetch("one", WEB).await.unwrap();

    assert_eq!(certificate.identity().as_str(), WEB);
    let valid = certificate.not_after().duration_since(certificate.not_before()).unwrap();
    assert!(valid >= Duration::from_secs(3600) && valid < Duration::from_secs(3800), "{valid:?}");
    assert!(tls::server_config(&certificate).is_ok());
}

#[tokio::test]
async fn a_node_proxy_gets_no_certificate_of_another_nodes_pods() {
    let mesh = mesh().await;
    let denied = (Code::Unauthenticated, "request impersonation authentication failure".to_owned());

    assert_eq!(code(mesh.fetch("two", WEB).await), denied);
    assert_eq!(code(mesh.fetch("one", "spiffe://cluster.local/ns/bank/sa/vault").await), denied);
}

#[tokio::test]
async fn another_trust_domain_is_never_signed_for() {
    let mesh = mesh().await;

    let (code, message) = code(mesh.fetch("one", "spiffe://elsewhere/ns/shop/sa/web").await);

    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("trust domain cluster.local"), "{message}");
}

#[tokio::test]
async fn without_a_good_token_nobody_gets_anything() {
    let mesh = mesh().await;
    let refused = (Code::Unauthenticated, "request authenticate failure".to_owned());
    let identity = WEB.parse().unwrap();

    assert_eq!(code(mesh.fetch("three", WEB).await), refused);
    assert_eq!(code(mesh.client(Token::None).fetch(&identity).await), refused);
    let unreadable = mesh.client(Token::file("/nowhere/token")).fetch(&identity).await;
    assert_eq!(unreadable.unwrap_err().code(), "ca_token");
}

#[tokio::test]
async fn a_proxy_of_one_workload_gets_its_own_certificate() {
    let mesh = mesh().await;
    let config = mesh.config(Token::Literal("two".to_owned()));
    let client = Client::new(ClientConfig { impersonate: false, ..config });
    let own = "spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap();

    assert_eq!(client.fetch(&own).await.unwrap().identity(), &own);

    let other = client.fetch(&WEB.parse().unwrap()).await.unwrap_err();
    assert_eq!(other.code(), "ca_wrong_identity");
}

#[tokio::test]
async fn tokens_are_read_again_on_both_sides() {
    let mesh = mesh().await;
    let token = mesh.dir.path().join("token");
    fs::write(&token, "one\n").unwrap();
    let client = mesh.client(Token::file(&token));
    let web = WEB.parse().unwrap();
    client.fetch(&web).await.unwrap();

    mesh.write_tokens(&[("node-1", "new")]);
    assert_eq!(code(client.fetch(&web).await).0, Code::Unauthenticated);
    fs::write(&token, "new\n").unwrap();

    client.fetch(&web).await.unwrap();
}

#[tokio::test]
async fn a_changed_root_file_is_used_for_the_next_request() {
    let mesh = mesh().await;
    let root = mesh.dir.path().join("other-root.pem");
    let stranger = tempfile::tempdir().unwrap();
    let stranger = Issuer::open_or_create(stranger.path(), TrustDomain::default()).unwrap();
    fs::write(&root, mesh.issuer.get().roots_pem()).unwrap();
    let config = mesh.config(Token::Literal("one".to_owned()));
    let client = Client::new(ClientConfig { roots: RootSource::Path(root.clone()), ..config });
    let web = WEB.parse().unwrap();
    client.fetch(&web).await.unwrap();

    fs::write(&root, stranger.roots_pem()).unwrap();
    assert!(client.fetch(&web).await.is_err());
    fs::write(&root, mesh.issuer.get().roots_pem()).unwrap();

    client.fetch(&web).await.unwrap();
}

#[tokio::test]
async fn an_unreachable_authority_is_an_error_that_names_it() {
    let mesh = mesh().await;
    let config = mesh.config(Token::None);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(ClientConfig { address: format!("https://{closed}").parse().unwrap(), ..config });

    let error = client.fetch(&WEB.parse().unwrap()).await.unwrap_err();

    assert_eq!(error.code(), "ca_refused");
    assert!(error.to_string().contains(&format!("connection to 127.0.0.1:{}", closed.port())), "{error}");
}
