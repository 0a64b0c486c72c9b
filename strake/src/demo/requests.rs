//! Step 7: rules about requests, in a waypoint: a canary by weight, a header match, a fault, an L7 DENY. Then all of it goes again.

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    enrol::set_label,
    faults::no_plaintext,
    report::Evidence,
    story::{CART, Story, TAKES_EFFECT, eventually},
};

/// A second version of web, the waypoint, and the rules.
const RULES: &str = include_str!("../../../examples/waypoint.yaml");

/// Label by which the Services of a namespace use a waypoint.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";

/// Requests of which a tenth should reach the second version.
const REQUESTS: usize = 200;

pub(crate) async fn tell(story: &mut Story) -> Result<()> {
    story.report.step("Rules about requests: a waypoint, a VirtualService and an AuthorizationPolicy");
    story.report.say("+ examples/waypoint.yaml: Gateway, a second version of web, VirtualService, DENY /admin");
    story.command(&format!("label namespace shop {USE_WAYPOINT}=waypoint --lab {}", story.lab.name()));
    story.apply("waypoint.yaml", RULES)?;
    set_label(story, &format!("{USE_WAYPOINT}=waypoint"))?;

    let through = eventually(TAKES_EFFECT, async || aborted(story).await).await;
    story.report.prove("requests to web go through the waypoint: it answers /teapot itself", through);
    let told = story.captured("node-1", rules(story)).await;
    let (told, frames) = match told {
        Ok((told, frames)) => (told, frames),
        Err(error) => bail!(error.context("the capture of the waypoint's traffic")),
    };
    for (what, result) in told {
        story.report.prove(what, result);
    }
    let clear = no_plaintext(story, &frames).await;
    story.report.prove("not one packet with plaintext payload on the wire, to the waypoint and from it", clear);

    story.report.say("- the label, and then examples/waypoint.yaml");
    set_label(story, &format!("{USE_WAYPOINT}-"))?;
    let direct = eventually(TAKES_EFFECT, async || {
        let (status, body) = ask(story, CART, "web/teapot", &[]).await?;
        ensure!(status == 200, "{status}: {body}");
        Ok(vec![format!("/teapot: {status}, by web itself")])
    })
    .await;
    story.report.prove("without the label requests go to web directly again", direct);
    // Only then: node proxies still send to the waypoint until they know of the label.
    story.delete("waypoint.yaml")?;
    Ok(())
}

async fn rules(story: &Story) -> Result<Vec<(&'static str, Result<Evidence>)>> {
    Ok(vec![
        ("one in ten requests goes to the second version", canary(story).await),
        ("a tester's header goes to it always", tester(story).await),
        ("/admin is denied, before web sees the request", denied(story).await),
    ])
}

async fn aborted(story: &Story) -> Result<Evidence> {
    let (status, body) = ask(story, CART, "web/teapot", &[]).await?;
    ensure!(status == 418, "{status}: {body}");
    Ok(vec![format!("{status}: {body}")])
}

async fn canary(story: &Story) -> Result<Evidence> {
    let (status, bodies) = ask(story, CART, &format!("web/[1-{REQUESTS}]"), &[]).await?;
    ensure!(status == 200, "{status}: {bodies}");
    let answered = |version: &str| bodies.lines().filter(|line| line.starts_with(&format!("{version}: "))).count();
    let (first, second) = (answered("web"), answered("web-v2"));
    ensure!(first + second == REQUESTS, "{first} and {second} of {REQUESTS} were answered: {bodies}");
    // Beyond these bounds once in a million runs.
    ensure!((3..=45).contains(&second), "{second} of {REQUESTS} reached web-v2");
    Ok(vec![format!("{first} to web, {second} to web-v2 of {REQUESTS}")])
}

async fn tester(story: &Story) -> Result<Evidence> {
    let (status, bodies) = ask(story, CART, "web/[1-5]", &["--header", "x-user: tester"]).await?;
    let second = bodies.lines().filter(|line| line.starts_with("web-v2: ")).count();
    ensure!(status == 200 && second == 5, "{status}: {bodies}");
    Ok(vec!["5 of 5 by web-v2".to_owned()])
}

async fn denied(story: &Story) -> Result<Evidence> {
    let mut evidence = Vec::new();
    for path in ["/admin", "/x/../admin", "/%61dmin"] {
        let (status, body) = ask(story, CART, &format!("web{path}"), &["--path-as-is"]).await?;
        ensure!(status == 403, "{path}: {status}: {body}");
        evidence.push(format!("{path}: {status} {body}"));
    }
    Ok(evidence)
}

/// One request with `curl`, or several with a range such as `[1-9]` in the URL: the last status, and the bodies. Options are
/// curl's.
async fn ask(story: &Story, from: &str, url: &str, options: &[&str]) -> Result<(u16, String)> {
    let url = format!("http://{url}?{}", story.marker);
    let always = ["curl", "--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}\n"];
    let argv: Vec<&str> = always.into_iter().chain(options.iter().copied()).chain([url.as_str()]).collect();
    let output = story.lab.exec(from, &argv).await?;
    ensure!(output.code == 0, "{from} -> {url}: {}", output.error_text());
    let text = output.text();
    let is_status = |line: &&str| line.len() == 3 && line.bytes().all(|byte| byte.is_ascii_digit());
    let status = text.lines().rfind(is_status).and_then(|line| line.parse().ok());
    let bodies: Vec<_> = text.lines().filter(|line| !line.is_empty() && !is_status(line)).collect();
    Ok((status.with_context(|| format!("{from} -> {url}: no status in {text:?}"))?, bodies.join("\n")))
}
