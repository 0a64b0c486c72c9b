//! Actions: forwarding, redirects and answers.

use std::time::Duration;

use proto::waypoint::{self as wire, redirect, rule, weighted};
use route::retry::{Condition, RetryOn, RetryPolicy};
use route::{
    Action, Destination, Forward, LocalAnswer, Mirror, Redirect, RedirectPath, RedirectPort, Target, Weighted,
};

use super::error::{Invalid, Problem, Within as _, each, optional, required};
use super::text::{decode_changes, decode_rewrite, encode_changes, encode_rewrite, nanoseconds, number, share};

pub(super) fn encode(of: &Action) -> rule::Action {
    match of {
        Action::Forward(forward) => rule::Action::Forward(encode_forward(forward)),
        Action::Redirect(redirect) => rule::Action::Redirect(encode_redirect(redirect)),
        Action::Respond(answer) => {
            let LocalAnswer { status, body, grpc_status } = answer;
            let (status, grpc_status) = ((*status).into(), grpc_status.map(Into::into));
            rule::Action::Respond(wire::LocalAnswer { status, body: body.clone(), grpc_status })
        }
    }
}

pub(super) fn decode(of: rule::Action) -> Result<Action, Invalid> {
    match of {
        rule::Action::Forward(forward) => decode_forward(forward).map(Action::Forward).within("forward"),
        rule::Action::Redirect(redirect) => decode_redirect(redirect).map(Action::Redirect).within("redirect"),
        rule::Action::Respond(answer) => decode_answer(answer).map(Action::Respond).within("respond"),
    }
}

fn decode_answer(of: wire::LocalAnswer) -> Result<LocalAnswer, Invalid> {
    let grpc_status = optional("grpc_status", of.grpc_status, |status| Ok(number(status)?))?;
    Ok(LocalAnswer { status: number(of.status).within("status")?, body: of.body, grpc_status })
}

fn encode_redirect(of: &Redirect) -> wire::Redirect {
    let Redirect { status, scheme, authority, port, path } = of;
    let port = match port {
        RedirectPort::Keep => redirect::Port::Keep(wire::Nothing {}),
        RedirectPort::Number(number) => redirect::Port::Number((*number).into()),
        RedirectPort::UnlessDefault(number) => redirect::Port::UnlessDefault((*number).into()),
    };
    let path = path.as_ref().map(|path| match path {
        RedirectPath::Full(path) => redirect::Path::Full(path.clone()),
        RedirectPath::Rewrite(rewrite) => redirect::Path::Rewrite(encode_rewrite(rewrite)),
    });
    let (scheme, authority) = (scheme.clone(), authority.clone());
    wire::Redirect { status: (*status).into(), scheme, authority, port: Some(port), path }
}

fn decode_redirect(of: wire::Redirect) -> Result<Redirect, Invalid> {
    let port = match required("port", of.port)? {
        redirect::Port::Keep(wire::Nothing {}) => RedirectPort::Keep,
        redirect::Port::Number(port) => RedirectPort::Number(number(port).within("port")?),
        redirect::Port::UnlessDefault(port) => RedirectPort::UnlessDefault(number(port).within("port")?),
    };
    let path = |path| {
        Ok(match path {
            redirect::Path::Full(path) => RedirectPath::Full(path),
            redirect::Path::Rewrite(rewrite) => RedirectPath::Rewrite(decode_rewrite(rewrite)?),
        })
    };
    Ok(Redirect {
        status: number(of.status).within("status")?,
        scheme: of.scheme,
        authority: of.authority,
        port,
        path: optional("path", of.path, path)?,
    })
}

fn encode_forward(of: &Forward) -> wire::Forward {
    let Forward { destinations, path, authority, timeout, retry, mirrors } = of;
    wire::Forward {
        destinations: destinations.iter().map(encode_weighted).collect(),
        path: path.as_ref().map(encode_rewrite),
        authority: authority.clone(),
        timeout: timeout.map(nanoseconds),
        retry: retry.as_ref().map(encode_retry),
        mirrors: mirrors.iter().map(encode_mirror).collect(),
    }
}

fn decode_forward(of: wire::Forward) -> Result<Forward, Invalid> {
    let mirror = |of: wire::Mirror| {
        let destination = decode_destination(required("destination", of.destination)?).within("destination")?;
        Ok(Mirror { destination, share: share(of.share).within("share")? })
    };
    Ok(Forward {
        destinations: each("destinations", of.destinations, decode_weighted)?,
        path: optional("path", of.path, decode_rewrite)?,
        authority: of.authority,
        timeout: of.timeout.map(Duration::from_nanos),
        retry: optional("retry", of.retry, decode_retry)?,
        mirrors: each("mirrors", of.mirrors, mirror)?,
    })
}

fn encode_mirror(Mirror { destination, share }: &Mirror) -> wire::Mirror {
    wire::Mirror { destination: Some(encode_destination(destination)), share: share.millionths() }
}

fn encode_destination(Destination { host, port, subset }: &Destination) -> wire::Destination {
    wire::Destination { host: host.clone(), port: (*port).into(), subset: subset.clone() }
}

fn decode_destination(of: wire::Destination) -> Result<Destination, Invalid> {
    Ok(Destination { host: of.host, port: number(of.port).within("port")?, subset: of.subset })
}

fn encode_weighted(of: &Weighted) -> wire::Weighted {
    let Weighted { target, weight, request_headers, response_headers, authority } = of;
    let target = match target {
        Target::Service(destination) => weighted::Target::Service(encode_destination(destination)),
        Target::Missing(destination) => weighted::Target::Missing(encode_destination(destination)),
        Target::Invalid => weighted::Target::Invalid(wire::Nothing {}),
    };
    wire::Weighted {
        target: Some(target),
        weight: *weight,
        request_headers: encode_changes(request_headers),
        response_headers: encode_changes(response_headers),
        authority: authority.clone(),
    }
}

fn decode_weighted(of: wire::Weighted) -> Result<Weighted, Invalid> {
    let target = match required("target", of.target)? {
        weighted::Target::Service(of) => Target::Service(decode_destination(of).within("service")?),
        weighted::Target::Missing(of) => Target::Missing(decode_destination(of).within("missing")?),
        weighted::Target::Invalid(wire::Nothing {}) => Target::Invalid,
    };
    Ok(Weighted {
        target,
        weight: of.weight,
        request_headers: decode_changes("request_headers", of.request_headers)?,
        response_headers: decode_changes("response_headers", of.response_headers)?,
        authority: of.authority,
    })
}

fn encode_retry(of: &RetryPolicy) -> wire::RetryPolicy {
    let RetryPolicy { attempts, on, per_try_timeout, base_pause, avoid_previous_hosts, other_localities } = of;
    wire::RetryPolicy {
        attempts: *attempts,
        conditions: on.conditions().iter().map(|condition| condition.name().to_owned()).collect(),
        statuses: on.statuses().iter().copied().map(Into::into).collect(),
        per_try_timeout: per_try_timeout.map(nanoseconds),
        base_pause: nanoseconds(*base_pause),
        avoid_previous_hosts: *avoid_previous_hosts,
        other_localities: *other_localities,
    }
}

fn decode_retry(of: wire::RetryPolicy) -> Result<RetryPolicy, Invalid> {
    let condition = |name: String| {
        let known = Condition::ALL.iter().copied().find(|condition| condition.name() == name);
        known.ok_or_else(|| Problem::Unknown(name).into())
    };
    let conditions = each("conditions", of.conditions, condition)?;
    let statuses = each("statuses", of.statuses, |status| Ok(number(status)?))?;
    Ok(RetryPolicy {
        attempts: of.attempts,
        on: RetryOn::new(&conditions, &statuses),
        per_try_timeout: of.per_try_timeout.map(Duration::from_nanos),
        base_pause: Duration::from_nanos(of.base_pause),
        avoid_previous_hosts: of.avoid_previous_hosts,
        other_localities: of.other_localities,
    })
}
