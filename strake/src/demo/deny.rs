//! Step 6: DENY by principal, on a new and on a live connection.

use anyhow::{Result, ensure};

use super::{
    load::Load,
    story::{CART, Story, TAKES_EFFECT, eventually},
};

const DENY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: no-cart
  namespace: shop
spec:
  selector:
    matchLabels:
      app: db
  action: DENY
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/shop/sa/cart]
";

/// Name of the policy in the log.
const POLICY: &str = "shop/no-cart";

pub(crate) async fn tell(story: &mut Story) -> Result<()> {
    story.report.step("Authorization: DENY cart, by principal");
    story.report.say("cart holds a connection to db, with a request every 100 ms");
    story.report.say("+ AuthorizationPolicy shop/no-cart: DENY cluster.local/ns/shop/sa/cart at db");
    // The connection is there before the policy: that a connection which was admitted is cut is the point of this step.
    let live = Load::live(story, "db").await?;
    story.apply("deny.yaml", DENY)?;

    story.report.prove(
        "the live connection is cut",
        live.ended().await.and_then(|report| {
            ensure!(!report["broken"].is_null(), "it lives on: {report}");
            Ok(vec![format!(
                "after {} requests in {:.1} s: {}",
                report["ok"],
                report["seconds"].as_f64().unwrap_or_default(),
                report["broken"]
            )])
        }),
    );
    let refused = eventually(TAKES_EFFECT, async || story.refused(CART, "db", POLICY).await).await;
    story
        .report
        .prove("a new connection is refused over both families, and the log says which policy decided", refused);
    story.report.say("- AuthorizationPolicy shop/no-cart");
    story.delete("deny.yaml")?;
    let again = eventually(TAKES_EFFECT, async || story.call_by_name(CART, "db").await).await;
    story.report.prove("without the policy it works again", again);
    Ok(())
}
