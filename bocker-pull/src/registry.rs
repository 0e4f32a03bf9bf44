//! One repository over HTTP: distribution-spec, with tokens and logins. Nothing is changed by a request, so everything may
//! be tried again.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bocker_common::{Error, Result};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LINK, LOCATION, RANGE, RETRY_AFTER, WARNING,
    WWW_AUTHENTICATE,
};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::auth::{self, Credential, Places};
use crate::challenge::{self, Bearer, Challenge};
use crate::digest::Digest;
use crate::endpoint::Endpoint;
use crate::origin;
use crate::reference::is_loopback;

/// Most bytes of a token server's answer.
const TOKEN_MAX: u64 = 1 << 20;
/// Most bytes of an error's body.
const ERROR_MAX: u64 = 64 << 10;
/// Most bytes of a file of certificates.
const PEM_MAX: u64 = 4 << 20;
/// Most redirects of one request.
const HOPS_MAX: usize = 10;
/// How often a request is made, the first time included.
const TRIES: u32 = 4;
/// The first wait between two tries; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// A secret of fewer bytes may be a part of any word.
const SHORT: usize = 6;
/// The longest that we wait because a registry says so.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// How long we wait for a registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For name, connection and TLS.
    pub(crate) connect: Duration,
    /// For the next byte; a whole manifest or token may take twice as long.
    pub(crate) idle: Duration,
}

impl Patience {
    /// 10 s to connect and 30 s for the next byte; with `$BOCKER_PULL_TIMEOUT` so many seconds for the next byte, and half
    /// of that to connect, but never more than 10 s.
    pub(crate) fn from_env() -> Self {
        let idle = std::env::var("BOCKER_PULL_TIMEOUT").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
        let idle: u64 = u64::clamp(idle, 2, 3600);
        Self { connect: Duration::from_secs((idle / 2).min(10)), idle: Duration::from_secs(idle) }
    }
}

/// A manifest or an index as the registry sent it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// `Content-Type`.
    pub(crate) content_type: Option<String>,
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The registry answered so.
    Status { status: StatusCode, said: String, wait: Option<Duration>, login: Option<String> },
    /// It did not answer, or not to the end. `passing` if it may go better in a moment.
    Broken { reason: String, passing: bool },
    /// It wants what we do not do.
    Refused(String),
    /// Not the registry's fault.
    Own(Error),
}

impl Failure {
    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self::Broken { reason: reason.into(), passing: true }
    }

    /// How long to wait before the next try, if there is one.
    pub(crate) fn pause(&self, tries: u32) -> Option<Duration> {
        let usual = PAUSE * 2u32.saturating_pow(tries.saturating_sub(1));
        match self {
            _ if tries >= TRIES => None,
            Self::Status { status, wait, .. } if [429, 500, 502, 503, 504].contains(&status.as_u16()) => {
                wait.or(Some(usual)).filter(|&wait| wait <= WAIT_MAX)
            }
            Self::Status { .. } => None,
            Self::Broken { passing, .. } => passing.then_some(usual),
            Self::Refused(_) | Self::Own(_) => None,
        }
    }

    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// `get URL: reason`
    pub(crate) fn at(self, url: &Url) -> Error {
        let (reason, hint) = match self {
            Self::Own(error) => return error,
            Self::Broken { reason, .. } | Self::Refused(reason) => (reason, None),
            Self::Status { status, said, wait, login } => {
                let name = status.canonical_reason().unwrap_or("unknown status");
                let said = if said.is_empty() { said } else { format!(": {said}") };
                let hint = match status.as_u16() {
                    401 => Some(login.unwrap_or_else(|| "no such image, or it needs a login".into())),
                    403 => Some(login.unwrap_or_else(|| "it is private, or this address is refused".into())),
                    429 | 503 => Some(match wait {
                        Some(wait) => format!("try again in {} s", wait.as_secs()),
                        None => "try again later".to_owned(),
                    }),
                    _ => None,
                };
                (format!("{} {name}{said}", status.as_u16()), hint)
            }
        };
        let error = Error::new("get", shown(url), reason);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// A URL for a message: without its query, which may hold a signature, and without a login.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    // It fails where there is no host, and so none of these.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.to_string().chars().take(400).collect()
}

/// One repository of one registry.
#[derive(Debug)]
pub(crate) struct Registry {
    endpoint: Endpoint,
    /// Where plain HTTP turned out to be what an insecure endpoint speaks.
    plain: OnceCell<Endpoint>,
    places: Places,
    /// Where it may lead inside.
    inside: origin::Allowed,
    patience: Patience,
    clients: RefCell<HashMap<Kind, reqwest::Client>>,
    /// `Authorization`, sent to the registry's own origin and nowhere else.
    authorization: RefCell<Option<Rc<str>>>,
    /// Held by the one request that gets a new one.
    renewing: Mutex<()>,
    known: OnceCell<Known>,
    remarks: RefCell<HashSet<String>>,
    /// It has answered us: that nobody listens may pass then.
    met: Cell<bool>,
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    tls: bool,
    /// The endpoint's own origin: its authorities, our certificate, or no questions asked.
    home: bool,
    /// This machine itself, which no proxy leads to.
    loopback: bool,
}

/// What we know about who we are.
#[derive(Debug, Default)]
struct Known {
    credential: Option<Credential>,
    /// What to say where access is denied.
    remark: Option<String>,
}

/// Runs `future` to its end. One thread: the kernel buffers, and several requests at once need no more.
///
/// # Errors
/// Its own, or no file descriptors left.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new("start", "the network client", e))?;
    let result = runtime.block_on(future);
    // A name server that does not answer keeps getaddrinfo(3) in its thread: leave it there.
    runtime.shutdown_background();
    result
}

impl Registry {
    /// The repository at `endpoint`, with the logins of `places`. Nothing is sent or read yet.
    pub(crate) fn new(endpoint: Endpoint, places: Places, inside: origin::Allowed, patience: Patience) -> Self {
        Self {
            endpoint,
            plain: OnceCell::new(),
            places,
            inside,
            patience,
            clients: RefCell::default(),
            authorization: RefCell::new(None),
            renewing: Mutex::new(()),
            known: OnceCell::new(),
            remarks: RefCell::default(),
            met: Cell::new(false),
        }
    }

    /// The manifest or index at `url`.
    pub(crate) async fn manifest(&self, url: &Url, accept: &str, most: u64) -> Result<Answer, Failure> {
        retry(async || {
            let response = self.get(url, accept, None).await?;
            self.remark(response.headers());
            let content_type = text(response.headers(), CONTENT_TYPE);
            let promised = text(response.headers(), "docker-content-digest");
            let bytes = self.body(response, most).await?;
            // The registry's own word about its body; it is there to notice a broken cache on the way.
            match promised.map(|digest| digest.parse::<Digest>()) {
                Some(Ok(digest)) if digest != Digest::of(&bytes) => {
                    Err(Failure::Refused(format!("the body is not {digest}, which its header promises")))
                }
                _ => Ok(Answer { bytes, content_type }),
            }
        })
        .await
    }

    /// Says once what a registry wants people to know: its warnings, and that few pulls are left.
    fn remark(&self, headers: &HeaderMap) {
        let warnings = headers.get_all(WARNING).iter().filter_map(|value| warning(value.to_str().ok()?));
        let number = |name| text(headers, name);
        let left = number("ratelimit-limit").zip(number("ratelimit-remaining"));
        let warnings = warnings.map(|words| self.without_secrets(words)).filter(|words| !words.is_empty());
        for words in warnings.chain(left.and_then(|(limit, left)| few_left(&limit, &left))) {
            if self.remarks.borrow_mut().insert(words.clone()) {
                crate::remark(format!("{}: {words}", self.here().registry));
            }
        }
    }

    /// One page of a listing, and the next one.
    pub(crate) async fn page(&self, url: &Url, most: u64) -> Result<(Vec<u8>, Option<Url>), Failure> {
        retry(async || {
            let response = self.get(url, "application/json", None).await?;
            let links: Vec<String> =
                response.headers().get_all(LINK).iter().filter_map(|value| Some(value.to_str().ok()?.into())).collect();
            let next = links.iter().find_map(|links| next_link(links)).map(|target| url.join(&target));
            let next = next.transpose().map_err(|_| Failure::Refused("its next page is no URL".into()))?;
            if next.as_ref().is_some_and(|next| !origin::same(next, url)) {
                return Err(Failure::Refused("its next page is elsewhere".into()));
            }
            Ok((self.body(response, most).await?, next))
        })
        .await
    }

    /// The bytes of a blob from `from` to the end of its `size`, and where in the blob they start.
    pub(crate) async fn blob(&self, url: &Url, from: u64, size: Option<u64>) -> Result<(Response, u64), Failure> {
        // Closed ranges only: some stores answer an open one with 200 and everything.
        let end = size.filter(|_| from > 0);
        let range = end.map(|size| format!("bytes={from}-{}", size.saturating_sub(1)));
        let response = self.get(url, "*/*", range.as_deref()).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let start = text(response.headers(), CONTENT_RANGE)
                    .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
                if start != Some(from) || from == 0 {
                    return Err(Failure::Refused("the registry sends another range than asked for".into()));
                }
                Ok((response, from))
            }
            _ => Ok((response, 0)),
        }
    }

    /// The next piece of a body, `None` at its end.
    pub(crate) async fn chunk(&self, response: &mut Response) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        self.in_time(response.chunk()).await
    }

    /// The endpoint as it is.
    pub(crate) fn here(&self) -> &Endpoint {
        self.plain.get().unwrap_or(&self.endpoint)
    }

    /// The URL of `path` in this repository. The first time, an insecure registry is asked whether it speaks HTTPS at all.
    pub(crate) async fn url(&self, path: &str) -> Result<Url> {
        if self.endpoint.insecure && self.plain.get().is_none() {
            let probe = self.endpoint.origin.join("v2/").map_err(|e| Error::new("get", "v2/", e.to_string()))?;
            let spoken = self.follow(&probe, "*/*", None, None).await;
            let plain = matches!(spoken, Err(Failure::Broken { .. }));
            let _ = self.plain.set(if plain { self.endpoint.plain() } else { self.endpoint.clone() });
        }
        let text = format!("{}/{path}", self.here().base());
        Url::parse(&text).map_err(|e| Error::new("get", text, e.to_string()))
    }

    /// GET, with a token or a login if the registry asks for one.
    async fn get(&self, url: &Url, accept: &str, range: Option<&str>) -> Result<Response, Failure> {
        let current = || self.authorization.borrow().clone();
        let mut sent = current();
        let mut own = false;
        loop {
            let response = self.follow(url, accept, range, sent.as_deref()).await?;
            let denied = response.status() == StatusCode::UNAUTHORIZED;
            if own || !denied || !origin::same(response.url(), &self.here().origin) {
                return self.good(response).await;
            }
            // None yet, or it has expired. One request gets a new one for all; our own is the last try.
            let _one = self.renewing.lock().await;
            if current() == sent {
                let Some(new) = self.authorize(&response).await? else {
                    return self.good(response).await;
                };
                self.authorization.replace(Some(new));
                own = true;
            }
            sent = current();
        }
    }

    /// `Authorization` as a denied response asks for it; `None` where we have nothing to offer.
    async fn authorize(&self, denied: &Response) -> Result<Option<Rc<str>>, Failure> {
        let headers = denied.headers().get_all(WWW_AUTHENTICATE);
        let values: Vec<&str> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
        Ok(match challenge::choose(&values) {
            Some(Challenge::Bearer(bearer)) => Some(format!("Bearer {}", self.fetch_token(&bearer).await?).into()),
            Some(Challenge::Basic) => match &self.known()?.credential {
                Some(Credential::Basic(pair)) => Some(format!("Basic {pair}").into()),
                _ => None,
            },
            None => None,
        })
    }

    /// Our login for this registry, looked up once.
    fn known(&self) -> Result<&Known, Failure> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let mut known = Known::default();
        let Endpoint { registry, repository, .. } = self.here();
        for login in self.places.logins(registry, repository).map_err(Failure::Own)? {
            match login.credential() {
                Ok(Some(credential)) => {
                    known.credential = Some(credential);
                    known.remark = Some(format!("the login of {login} is refused"));
                    break;
                }
                Ok(None) => {}
                // Most images need no login: why there is none is told only if this one does.
                Err(reason) => known.remark = Some(reason),
            }
        }
        Ok(self.known.get_or_init(|| known))
    }

    /// Asks the challenge's realm for leave to pull from this repository.
    async fn fetch_token(&self, bearer: &Bearer) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Tokens {
            token: Option<String>,
            access_token: Option<String>,
        }
        let realm = Url::parse(&bearer.realm).map_err(|_| {
            let realm: String = bearer.realm.chars().take(200).collect();
            Failure::Refused(format!("its token server '{realm}' is not a URL"))
        })?;
        let refused = |reason: &str| Failure::Refused(format!("its token server '{}' {reason}", shown(&realm)));
        origin::may_visit(&self.here().origin, &realm, &self.inside)
            .map_err(|reason| refused(&format!("is refused: {reason}")))?;
        // Our own scope, not the challenge's: we want to pull this, whatever the registry would have us ask.
        let scope = format!("repository:{}:pull", self.endpoint.repository);
        let service = bearer.service.as_deref();
        let ask = async {
            let response = match &self.known()?.credential {
                Some(Credential::Identity(token)) => self.exchange(&realm, service, &scope, token).await?,
                other => {
                    let basic = match other {
                        Some(Credential::Basic(pair)) => Some(format!("Basic {pair}")),
                        _ => None,
                    };
                    let mut url = realm.clone();
                    let service = service.map(|service| ("service", service));
                    url.query_pairs_mut().extend_pairs(service).append_pair("scope", &scope);
                    self.follow(&url, "application/json", None, basic.as_deref()).await?
                }
            };
            self.body(self.good(response).await?, TOKEN_MAX).await
        };
        let body = ask.await.map_err(|failure| match failure {
            Failure::Broken { reason, passing } => {
                Failure::Broken { reason: format!("its token server {}: {reason}", shown(&realm)), passing }
            }
            Failure::Refused(reason) => refused(&format!("answers what we refuse: {reason}")),
            // Its 404 says nothing about the image.
            Failure::Status { status, .. } if ![401, 403, 429].contains(&status.as_u16()) && status.as_u16() < 500 => {
                refused(&format!("answers {}", status.as_u16()))
            }
            denied => denied,
        })?;
        let tokens: Tokens = serde_json::from_slice(&body).map_err(|_| refused("does not answer with a token"))?;
        tokens
            .token
            .or(tokens.access_token)
            .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
            .ok_or_else(|| refused("does not answer with a token"))
    }

    /// An identity token for one of this repository's: a form, so that no log has it.
    async fn exchange(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        identity: &str,
    ) -> Result<Response, Failure> {
        let mut form = realm.clone();
        form.query_pairs_mut()
            .clear()
            .append_pair("grant_type", "refresh_token")
            .extend_pairs(service.map(|service| ("service", service)))
            .extend_pairs([("client_id", "bocker-pull"), ("scope", scope), ("refresh_token", identity)]);
        let request = self.client(realm)?.post(realm.clone()).header(ACCEPT, "application/json");
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let response = request.body(form.query().unwrap_or_default().to_owned()).send();
        let response = self.in_time(response).await?;
        match response.status().is_redirection() {
            true => Err(Failure::Refused("a login follows no redirect".into())),
            false => Ok(response),
        }
    }

    /// GET along redirects. They are followed here, hop by hop, so that each one is looked at before anything is sent
    /// there, and what authorizes us goes to the first one's origin only.
    async fn follow(
        &self,
        first: &Url,
        accept: &str,
        range: Option<&str>,
        authorization: Option<&str>,
    ) -> Result<Response, Failure> {
        let mut url = first.clone();
        for _ in 0..=HOPS_MAX {
            let mut request = self.client(&url)?.get(url.clone()).header(ACCEPT, accept);
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            if let (Some(authorization), true) = (authorization, origin::same(&url, first)) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = self.in_time(request.send()).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = text(response.headers(), LOCATION).unwrap_or_default();
            let next = url.join(&target).map_err(|_| Failure::Refused("it redirects to what is no URL".into()))?;
            origin::may_visit(&self.here().origin, &next, &self.inside)
                .map_err(|reason| Failure::Refused(format!("its redirect to {} is refused: {reason}", shown(&next))))?;
            url = next;
        }
        Err(Failure::Refused(format!("it redirects more than {HOPS_MAX} times")))
    }

    /// The response, or the failure that its status is, with the registry's own message.
    async fn good(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let wait = text(response.headers(), RETRY_AFTER).and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let said = self.body(response, ERROR_MAX).await.map(|body| message(&body)).unwrap_or_default();
        let said = self.without_secrets(said).chars().take(200).collect();
        let login = self.known.get().and_then(|known| known.remark.clone());
        Err(Failure::Status { status, said, wait, login })
    }

    /// What a registry says, but not what it heard from us.
    fn without_secrets(&self, said: String) -> String {
        let sent = self.authorization.borrow().clone();
        let sent = sent.as_deref().and_then(|value| value.split_once(' ')).map(|(_, secret)| secret);
        let login = self.known.get().and_then(|known| known.credential.as_ref()).map(|credential| match credential {
            Credential::Basic(secret) | Credential::Identity(secret) => secret.as_str(),
        });
        hidden(said, &sent.into_iter().chain(login).collect::<Vec<_>>())
    }

    /// A whole body of at most `most` bytes.
    async fn body(&self, mut response: Response, most: u64) -> Result<Vec<u8>, Failure> {
        let too_long = || Failure::Refused(format!("the answer is longer than {most} bytes"));
        if response.content_length().is_some_and(|length| length > most) {
            return Err(too_long());
        }
        let started = Instant::now();
        let mut body = Vec::new();
        while let Some(piece) = self.chunk(&mut response).await? {
            body.extend_from_slice(piece.as_ref());
            if body.len() as u64 > most {
                return Err(too_long());
            }
            if started.elapsed() > self.patience.idle * 2 {
                return Err(self.too_slow());
            }
        }
        Ok(body)
    }

    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    pub(crate) fn too_slow(&self) -> Failure {
        Failure::Broken { reason: "the registry is too slow".into(), passing: false }
    }

    /// The client for a URL. The one for HTTP has no certificates, so that a loopback registry works on a machine without
    /// any, and does not wait for 150 of them to be read.
    fn client(&self, url: &Url) -> Result<reqwest::Client, Failure> {
        let kind = Kind {
            tls: url.scheme() == "https",
            home: origin::same(url, &self.here().origin),
            loopback: url.host_str().is_some_and(is_loopback),
        };
        if let Some(client) = self.clients.borrow().get(&kind) {
            return Ok(client.clone());
        }
        // Fails if there is one already, which is then the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("bocker-pull/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(self.patience.connect);
        if kind.loopback {
            builder = builder.no_proxy();
        }
        builder = if kind.tls { builder.https_only(true) } else { builder.tls_certs_only([]) };
        if kind.tls && kind.home {
            builder = trust(builder, self.here()).map_err(Failure::Own)?;
        }
        // What goes through a proxy that one looks up; its own name may lead inside.
        if !kind.home {
            let home = self.here().origin.host_str().unwrap_or_default().to_owned();
            let outside = origin::Outside { home, proxies: proxies(), allowed: self.inside.clone() };
            builder = builder.dns_resolver(outside);
        }
        let client = builder.build().map_err(|e| Failure::Refused(root(&e)))?;
        self.clients.borrow_mut().insert(kind, client.clone());
        Ok(client)
    }

    /// What comes before our patience ends. Counted from now: the client's own clock would go on while nobody reads.
    async fn in_time<T>(&self, answer: impl Future<Output = reqwest::Result<T>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.patience.idle, answer).await {
            Ok(answer) => answer.map_err(|e| self.broken(&e)).inspect(|_| self.met.set(true)),
            Err(_) => {
                let reason = format!("no answer for {} s", self.patience.idle.as_secs());
                Err(Failure::Broken { reason, passing: false })
            }
        }
    }

    /// What a failed connection means.
    fn broken(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            let reason = format!("no connection within {} s", self.patience.connect.as_secs());
            return Failure::Broken { reason, passing: false };
        }
        if let Some(inside) = causes(error).find_map(|cause| cause.downcast_ref::<origin::Inside>()) {
            return Failure::Refused(inside.to_string());
        }
        // Nobody listens, there is no such host, or its certificate is wrong: that does not pass in a second; unless it is the
        // network's word on a registry that has just answered.
        let kernel = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.raw_os_error().is_some())
        };
        let passing = !error.is_connect() || self.met.get() && causes(error).any(kernel);
        Failure::Broken { reason: root(error), passing }
    }
}

/// The endpoint's own authorities and our certificate for it; any certificate of its where the user wants that.
fn trust(mut builder: reqwest::ClientBuilder, endpoint: &Endpoint) -> Result<reqwest::ClientBuilder> {
    let read = |path: &Path| auth::read(path, PEM_MAX).map_err(|e| Error::new("read", path.display(), e));
    for path in &endpoint.roots {
        let roots = reqwest::Certificate::from_pem_bundle(&read(path)?)
            .map_err(|_| Error::new("read", path.display(), "it holds no certificate"))?;
        builder = builder.tls_certs_merge(roots);
    }
    if let Some((cert, key)) = &endpoint.identity {
        let mut pem = read(cert)?;
        pem.extend_from_slice(b"\n");
        pem.extend(read(key)?);
        let identity = reqwest::Identity::from_pem(&pem)
            .map_err(|_| Error::new("read", cert.display(), format!("it and {} are no pair", key.display())))?;
        builder = builder.identity(identity);
    }
    Ok(builder.tls_danger_accept_invalid_certs(endpoint.insecure))
}

/// Tries until it works, fails for good, or has failed often enough.
async fn retry<T>(act: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut tries = 1;
    loop {
        match act().await {
            Ok(done) => return Ok(done),
            Err(failure) => match failure.pause(tries) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failure),
            },
        }
        tries += 1;
    }
}

/// The hosts of the proxies that the environment names.
pub(crate) fn proxies() -> Vec<String> {
    let values = ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(std::env::var);
    values.into_iter().flatten().filter_map(|value| proxy_host(&value)).collect()
}

/// `[scheme://][user:password@]host[:port]`
fn proxy_host(value: &str) -> Option<String> {
    let url = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    Some(Url::parse(&url).ok()?.host_str()?.to_owned())
}

/// An error, what caused it, what caused that.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The innermost reason of a chain of errors, in the kernel's words where it is the kernel's.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut reason = String::new();
    for error in causes(error) {
        reason = match error.downcast_ref::<std::io::Error>() {
            Some(io) => bocker_common::diag::Reason::from(io).to_string(),
            None => error.to_string(),
        };
    }
    match reason.strip_prefix("failed to lookup address information: ") {
        Some(resolver) => resolver.to_owned(),
        None => reason,
    }
}

/// The target of the link to the next page: `<…>; rel="next"`, one of several (RFC 8288).
fn next_link(links: &str) -> Option<String> {
    let mut rest = links;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let (parameters, next) = after.split_once(",").unwrap_or((after, ""));
        let is_next = |word: &str| {
            word.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
            })
        };
        if parameters.split(';').any(is_next) {
            return Some(target.to_owned());
        }
        rest = next;
    }
}

/// The text of a warning that is meant for people: `299 - "text"` (distribution-spec).
fn warning(value: &str) -> Option<String> {
    let quoted = value.strip_prefix("299 - \"")?.strip_suffix('"')?;
    Some(quoted.replace("\\\"", "\"").chars().take(300).collect())
}

/// What to say if less than a tenth of the pulls is left: `100;w=21600` and `9;w=21600`.
fn few_left(limit: &str, left: &str) -> Option<String> {
    let parts = |text: &str| {
        let (number, window) = text.split_once(";w=").map_or((text, None), |(number, window)| (number, Some(window)));
        Some((number.trim().parse::<u64>().ok()?, window.and_then(|window| window.trim().parse::<u64>().ok())))
    };
    let ((limit, _), (left, window)) = (parts(limit)?, parts(left)?);
    let window = match window {
        Some(seconds) if seconds >= 3600 => format!(" in {} h", seconds.div_ceil(3600)),
        Some(seconds) => format!(" in {} min", seconds.div_ceil(60)),
        None => String::new(),
    };
    (left < limit.div_ceil(10)).then(|| format!("{left} of {limit} pulls{window} are left"))
}

/// A message without what was sent, as it was sent and decoded: some registries repeat it.
///
/// A secret that is too short leaves nothing of the message: marks in its places would garble words, and tell what it is by
/// those that are missing. The status is what is left to say.
fn hidden(said: String, sent: &[&str]) -> String {
    // `user:password`, and the password.
    let plain: Vec<String> =
        sent.iter().filter_map(|secret| String::from_utf8(BASE64.decode(secret).ok()?).ok()).collect();
    let passwords = plain.iter().filter_map(|pair| Some(pair.split_once(':')?.1));
    let mut secrets: Vec<&str> =
        sent.iter().copied().chain(plain.iter().map(String::as_str)).chain(passwords).collect();
    secrets.retain(|secret| !secret.is_empty());
    if secrets.iter().any(|secret| secret.len() < SHORT) {
        return String::new();
    }
    // The longest first: a password may be a part of its pair.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(said, |said, secret| said.replace(secret, "…"))
}

/// A header's value if it is there once and is text.
fn text(headers: &HeaderMap, name: impl reqwest::header::AsHeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The message of an error's body: `{"errors":[{"code":…,"message":…}]}`.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_slice::<Errors>(body).ok().and_then(|errors| errors.errors.into_iter().next());
    first.map(|one| one.message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, wait: Option<u64>) -> Failure {
        let status = StatusCode::from_u16(code).unwrap();
        Failure::Status { status, said: String::new(), wait: wait.map(Duration::from_secs), login: None }
    }

    #[test]
    fn tries_again_only_what_may_pass() {
        for code in [500, 502, 503, 504] {
            assert!(status(code, None).pause(1).is_some(), "{code}");
            assert!(status(code, None).pause(TRIES).is_none(), "{code}");
        }
        for code in [400, 401, 403, 404, 416, 418] {
            assert!(status(code, None).pause(1).is_none(), "{code}");
        }
        assert_eq!(status(429, Some(3)).pause(1), Some(Duration::from_secs(3)));
        assert_eq!(status(503, Some(2)).pause(1), Some(Duration::from_secs(2)));
        for code in [429, 503] {
            assert_eq!(status(code, Some(3600)).pause(1), None, "an hour is not worth waiting for");
        }
        assert!(Failure::Refused(String::new()).pause(1).is_none());
    }

    #[test]
    fn a_message_repeats_no_login() {
        let pair = |password: &str| BASE64.encode(format!("user:{password}"));
        let said = |password: &str, words: &str| hidden(words.into(), &[&pair(password)]);
        let basic = pair("secret");
        assert_eq!(said("secret", &format!("not {basic}, user:secret or secret")), "not …, … or …");
        assert_eq!(said("secret", "denied"), "denied");
        // Whether a short one is in it or not: nothing tells them apart.
        for short in ["wrong", "12345", "a", "ä"] {
            for words in ["wrong password", "not with 12345", "denied", &format!("no {}", pair(short))] {
                assert_eq!(said(short, words), "", "{short}");
            }
        }
        // Without a login there is nothing to hide.
        assert_eq!(hidden("wrong password".into(), &[]), "wrong password");
        // Tokens, which are no pairs, though some are base64 of something.
        assert_eq!(hidden("token abcdefgh is bad".into(), &["abcdefgh"]), "token … is bad");
        assert_eq!(hidden("aGk= is bad".into(), &["aGk="]), "");
    }

    #[test]
    fn finds_the_next_page() {
        for (links, next) in [
            (r#"</v2/a/tags/list?last=x&n=2>; rel="next""#, Some("/v2/a/tags/list?last=x&n=2")),
            ("<a>; rel=prev, <b>; title=x; REL=Next", Some("b")),
            ("<a>;rel=\"next\";x=y", Some("a")),
            ("<a>", None),
            ("<a>; rel=nextone", None),
            ("<a; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_link(links).as_deref(), next, "{links}");
        }
        let mut noise = crate::testing::Noise::new(47);
        for _ in 0..10_000 {
            let _ = next_link(&noise.text("<a>;, rel=\"next\"é", 40));
        }
    }

    #[test]
    fn says_when_few_pulls_are_left() {
        let said = |limit, left| few_left(limit, left).unwrap_or_default();
        assert_eq!(said("100;w=21600", "9;w=21600"), "9 of 100 pulls in 6 h are left");
        assert_eq!(said("200", "0"), "0 of 200 pulls are left");
        assert_eq!(said("5;w=60", "0;w=60"), "0 of 5 pulls in 1 min are left");
        for (limit, left) in
            [("100;w=21600", "10;w=21600"), ("", ""), ("0", "0"), ("x", "1"), ("100", "-1"), ("9", "9")]
        {
            assert_eq!(said(limit, left), "", "{limit} {left}");
        }
        assert_eq!(warning(r#"299 - "old \"x\"""#).as_deref(), Some("old \"x\""));
        for other in ["", "299 -", "199 - \"x\"", "299 - \"", "299 - x"] {
            assert_eq!(warning(other), None, "{other}");
        }
        let mut noise = crate::testing::Noise::new(41);
        for _ in 0..5_000 {
            let _ = few_left(&noise.text("0129;w= é", 24), &noise.text("0129;w= ", 24));
            let _ = warning(&noise.text("299 -\"\\é", 12));
        }
    }

    #[test]
    fn a_message_shows_no_query_and_no_page() {
        let url = Url::parse("https://h.example/v2/a?X-Amz-Signature=secret").unwrap();
        let line = status(403, None).at(&url).to_string();
        assert_eq!(line, "get https://h.example/v2/a: 403 Forbidden (it is private, or this address is refused)");
        assert_eq!(shown(&Url::parse("https://user:secret@h.example/a?b").unwrap()), "https://h.example/a");
        assert_eq!(shown(&Url::parse("file:///a?b").unwrap()), "file:///a");
        assert_eq!(message(b"<html>"), "");
        assert_eq!(message(br#"{"errors":[{"code":"DENIED","message":"no"}]}"#), "no");
    }
}
