//! DynamoDB: one table, one item a batch. Whoever puts a number first has it, by a condition on the item. It wakes nobody, so
//! readers look again, soon after something came and more rarely when nothing does; all reads are consistent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, Delete, KeySchemaElement, KeyType, ScalarAttributeType,
    TableStatus, TransactWriteItem,
};
use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, Hash};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;

use crate::health::Health;
use crate::log::{
    AppendError, EventLog, LogError, PAGE_BYTES, Page, READ_AT_LEAST, SnapshotStore, check_read, check_size, is_for,
};
use crate::poll::{self, Pace};

/// How often a watch looks.
const PACE: Pace = Pace { soonest: Duration::from_millis(50), latest: Duration::from_secs(1) };

/// How long an answer may take, and all attempts of the library together.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
const GIVEN_UP_AFTER: Duration = Duration::from_secs(20);

/// A table that was made is waited for this long.
const MADE_WITHIN: Duration = Duration::from_secs(120);

/// Items of one transaction.
const AT_ONCE: usize = 100;

/// What comes after every key of a batch.
const AFTER_BATCHES: &str = "c";

/// The item that has the manifest.
const MANIFEST: &str = "m";

type Item = HashMap<String, AttributeValue>;

/// A table: partition key `stream`, sort key `item` (both texts); `b` and twenty digits is a batch, `p` and a hash a part of
/// the snapshot, `m` its manifest.
#[derive(Clone, Debug)]
pub struct DynamodbTable {
    client: Client,
    table: Arc<str>,
    place: Arc<str>,
}

/// One stream in a table.
#[derive(Clone, Debug)]
pub struct DynamodbLog {
    table: DynamodbTable,
    stream: Arc<str>,
    /// A batch that was there, and when that was looked at: what is there does not change.
    known: Arc<Mutex<Option<(Cursor, Instant)>>>,
}

impl DynamodbTable {
    /// A table as `dynamodb://TABLE?region=REGION&endpoint=URL` names it; what is left out, and the credentials, are found as
    /// AWS's own programs find them. Makes the table if `create` says so.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn open(url: &str, create: bool) -> Result<Self, LogError> {
        let no_url = |what: &str| LogError::Unavailable {
            place: "DynamoDB".into(),
            cause: format!(
                "{what}; write dynamodb://TABLE, with ?region=eu-central-1 where AWS_REGION does not say it"
            ),
        };
        let rest = url.strip_prefix("dynamodb://").ok_or_else(|| no_url("this is no URL of a table"))?;
        let (table, query) = rest.split_once('?').unwrap_or((rest, ""));
        let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if !(3..=255).contains(&table.len()) || !table.chars().all(good) {
            return Err(no_url("this is no name of a table"));
        }
        let patience =
            TimeoutConfig::builder().operation_attempt_timeout(ANSWERED_WITHIN).operation_timeout(GIVEN_UP_AFTER);
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(patience.build());
        let mut where_it_is = String::new();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            loader = match key {
                "region" => loader.region(Region::new(value.to_owned())),
                "endpoint" if value.contains('@') => return Err(no_url("its endpoint has a login in it")),
                "endpoint" => loader.endpoint_url(value),
                other => return Err(no_url(&format!("`{other}` is nothing that its URL says"))),
            };
            where_it_is = format!(" at {value}");
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(no_url("no region is named"));
        }
        let place = format!("DynamoDB {table}{where_it_is}");
        let table = Self { client: Client::new(&config), table: table.into(), place: place.into() };
        if create {
            table.make().await?;
        }
        Ok(table)
    }

    async fn make(&self) -> Result<(), LogError> {
        let attribute = |name: &str| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build()
        };
        let key = |name: &str, kind: KeyType| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        let known = |e: aws_sdk_dynamodb::error::BuildError| self.wrong(e.to_string());
        let made = self
            .client
            .create_table()
            .table_name(&*self.table)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(attribute("stream").map_err(known)?)
            .attribute_definitions(attribute("item").map_err(known)?)
            .key_schema(key("stream", KeyType::Hash).map_err(known)?)
            .key_schema(key("item", KeyType::Range).map_err(known)?)
            .send()
            .await;
        match made {
            Ok(_) => {}
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => {}
            Err(error) => return Err(self.fault(&error)),
        }
        let until = Instant::now() + MADE_WITHIN;
        loop {
            let found =
                self.client.describe_table().table_name(&*self.table).send().await.map_err(|e| self.fault(&e))?;
            let status = found.table.and_then(|table| table.table_status);
            if status == Some(TableStatus::Active) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(self.wrong(format!("the table is {status:?} after {} s", MADE_WITHIN.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// One of its streams; it need not exist yet.
    pub fn stream(&self, name: &str) -> DynamodbLog {
        DynamodbLog { table: self.clone(), stream: name.into(), known: Arc::default() }
    }

    /// The names of the streams in it. Reads the keys of the whole table.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn streams(&self) -> Result<Vec<String>, LogError> {
        let mut names = std::collections::BTreeSet::new();
        let scan = self
            .client
            .scan()
            .table_name(&*self.table)
            .projection_expression("#s")
            .expression_attribute_names("#s", "stream");
        let mut pages = scan.into_paginator().items().send();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|e| self.fault(&e))?;
            names.extend(item.get("stream").and_then(|name| name.as_s().ok()).cloned());
        }
        Ok(names.into_iter().collect())
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn health(&self) -> Result<Health, LogError> {
        let found = self.client.describe_table().table_name(&*self.table).send().await.map_err(|e| self.fault(&e))?;
        let Some(table) = found.table else { return Err(self.wrong("it does not describe its table".into())) };
        let (mut wrong, mut remarks) = (Vec::new(), Vec::new());
        if table.table_status != Some(TableStatus::Active) {
            wrong.push(format!("the table is {:?}, not active", table.table_status));
        }
        if table.deletion_protection_enabled != Some(true) {
            remarks.push("the table may be deleted by one call; turn deletion protection on".into());
        }
        Ok(Health { version: "DynamoDB".into(), clock: None, wrong, remarks })
    }

    fn wrong(&self, cause: String) -> LogError {
        LogError::Unavailable { place: self.place.to_string(), cause }
    }

    fn fault<E: ProvideErrorMetadata + std::error::Error + 'static>(&self, error: &SdkError<E>) -> LogError {
        let message = || error.message().unwrap_or_default().to_owned();
        let cause = match error.code() {
            Some("ResourceNotFoundException") => format!("there is no table {}; `certbus init` makes it", self.table),
            Some("AccessDeniedException") => format!(
                "{}; readers need dynamodb:GetItem and dynamodb:Query, managers also PutItem, DeleteItem and \
                 TransactWriteItems, `certbus init` CreateTable and DescribeTable",
                message()
            ),
            Some("UnrecognizedClientException" | "InvalidSignatureException" | "ExpiredTokenException") => {
                format!("{}; look at the credentials: AWS_PROFILE, AWS_ACCESS_KEY_ID or the machine's role", message())
            }
            Some(code) => format!("{code}: {}", message()),
            None => {
                let mut cause: &dyn std::error::Error = error;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                cause.to_string()
            }
        };
        self.wrong(cause)
    }
}

impl DynamodbLog {
    fn key(&self, item: &str) -> Item {
        Item::from([
            ("stream".to_owned(), AttributeValue::S(self.stream.to_string())),
            ("item".to_owned(), AttributeValue::S(item.to_owned())),
        ])
    }

    fn known(&self) -> Option<(Cursor, Instant)> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, place: Option<Cursor>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = place.map(|place| (place, Instant::now()));
    }

    async fn get(&self, item: &str, attributes: &'static str) -> Result<Option<Item>, LogError> {
        let got = self
            .table
            .client
            .get_item()
            .table_name(&*self.table.table)
            .set_key(Some(self.key(item)))
            .projection_expression(attributes)
            .consistent_read(true)
            .send()
            .await
            .map_err(|e| self.table.fault(&e))?;
        Ok(got.item)
    }

    /// The first or the last batch's number, with some of its attributes.
    async fn end(&self, first: bool, attributes: &str) -> Result<Option<(u64, Item)>, LogError> {
        let query = self.batches(1, 0).scan_index_forward(first).projection_expression(format!("#i, {attributes}"));
        let found = query.limit(1).send().await.map_err(|e| self.table.fault(&e))?;
        Ok(found.items.unwrap_or_default().into_iter().next().map(|item| (number_of(&item), item)))
    }

    /// A query of the batches from number `from` on.
    fn batches(&self, from: u64, limit: i32) -> aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder {
        let query = self
            .table
            .client
            .query()
            .table_name(&*self.table.table)
            .key_condition_expression("#s = :s AND #i BETWEEN :from AND :to")
            .expression_attribute_names("#s", "stream")
            .expression_attribute_names("#i", "item")
            .expression_attribute_values(":s", AttributeValue::S(self.stream.to_string()))
            .expression_attribute_values(":from", AttributeValue::S(batch_key(from)))
            .expression_attribute_values(":to", AttributeValue::S(AFTER_BATCHES.into()))
            .consistent_read(true);
        if limit > 0 { query.limit(limit) } else { query }
    }

    async fn head(&self) -> Result<Cursor, LogError> {
        let last = self.end(false, "sha256").await?;
        Ok(last.map_or(Cursor::START, |(seq, item)| Cursor { seq, hash: hash_of(&item).unwrap_or(Hash::ZERO) }))
    }

    async fn read_now(&self, after: Cursor, limit: usize) -> Result<Page, LogError> {
        // A place that was there a moment ago is there: what comes after it names it.
        let fresh = self.known().is_some_and(|(place, at)| place == after && at.elapsed() < READ_AT_LEAST);
        if fresh {
            let page = self.page(after, limit).await?;
            if page.batches.first().is_none_or(|first| first.expected() == after) {
                self.learn_from(after, &page);
                return Ok(page);
            }
        }
        self.check(after).await?;
        let page = self.page(after, limit).await?;
        self.learn_from(after, &page);
        Ok(page)
    }

    fn learn_from(&self, after: Cursor, page: &Page) {
        match (page.batches.last(), self.known()) {
            (Some(last), _) => self.learn(Some(last.cursor())),
            // That nothing came after it does not say that it is still there.
            (None, Some((place, _))) if place == after => {}
            (None, _) => self.learn((after != Cursor::START).then_some(after)),
        }
    }

    /// Whether a place is one of this stream.
    async fn check(&self, after: Cursor) -> Result<(), LogError> {
        let found = match after.seq {
            0 => None,
            seq => self.get(&batch_key(seq), "sha256").await?.as_ref().and_then(hash_of),
        };
        if found == Some(after.hash) {
            self.learn(Some(after));
            return Ok(());
        }
        let first = self
            .end(true, "body")
            .await?
            .map(|(seq, item)| (seq, self.parse(seq, &item).map_or(Hash::ZERO, |batch| batch.envelope().previous)));
        let head = self.head().await?;
        check_read(&self.place(), after, first, found, head.seq)
    }

    async fn page(&self, after: Cursor, limit: usize) -> Result<Page, LogError> {
        let (mut page, mut size, mut from) = (Page::default(), 0, None);
        loop {
            let left = i32::try_from(limit.saturating_sub(page.batches.len()).min(1000)).unwrap_or(1);
            let query = self.batches(after.seq.saturating_add(1), left).set_exclusive_start_key(from);
            let found = query.send().await.map_err(|e| self.table.fault(&e))?;
            for item in found.items.unwrap_or_default() {
                let batch = match self.parse(number_of(&item), &item) {
                    Ok(batch) => batch,
                    Err(error) if page.batches.is_empty() => return Err(error),
                    Err(_) => return Ok(page),
                };
                size += batch.bytes().len();
                if size > PAGE_BYTES && !page.batches.is_empty() {
                    return Ok(page);
                }
                page.batches.push(batch);
            }
            from = found.last_evaluated_key;
            if from.is_none() || page.batches.len() >= limit {
                return Ok(page);
            }
        }
    }

    fn parse(&self, seq: u64, item: &Item) -> Result<Batch, LogError> {
        let body = item.get("body").and_then(|body| body.as_b().ok()).map_or(&[][..], AsRef::as_ref);
        Batch::parse(body.to_vec()).map_err(|source| LogError::Corrupt { place: self.place(), seq, source })
    }

    async fn append_now(&self, expected: Cursor, batch: Batch) -> Result<Cursor, AppendError> {
        check_size(&batch)?;
        let here = match expected {
            // Looked up each time: it may have been cut off since it was known.
            Cursor::START => self.end(true, "sha256").await?.is_none(),
            _ => {
                let found = self.get(&batch_key(expected.seq), "sha256").await?;
                found.as_ref().and_then(hash_of) == Some(expected.hash)
            }
        };
        if !here || !is_for(expected, &batch) {
            return Err(AppendError::Conflict { head: self.head().await? });
        }
        let cursor = batch.cursor();
        let mut item = self.key(&batch_key(cursor.seq));
        item.insert("sha256".into(), AttributeValue::B(Blob::new(cursor.hash.as_bytes().as_slice())));
        item.insert("body".into(), AttributeValue::B(Blob::new(&**batch.bytes())));
        let put = self
            .table
            .client
            .put_item()
            .table_name(&*self.table.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#i)")
            .expression_attribute_names("#i", "item")
            .customize()
            // The library would send again what got no answer, and then take its own item for another's.
            .config_override(Builder::new().retry_config(RetryConfig::disabled()))
            .send()
            .await;
        match put {
            Ok(_) => {}
            Err(error) if is_taken(&error) => {
                self.learn(None);
                return Err(AppendError::Conflict { head: self.head().await? });
            }
            Err(error) if !is_refused(&error) => {
                return Err(AppendError::Unknown { cause: self.table.fault(&error).to_string() });
            }
            Err(error) => return Err(self.table.fault(&error).into()),
        }
        self.learn(Some(cursor));
        Ok(cursor)
    }

    /// Takes batches away, so many at once or none of them, in this order.
    async fn delete(&self, numbers: &[u64]) -> Result<(), LogError> {
        self.learn(None);
        for some in numbers.chunks(AT_ONCE) {
            let mut all = self.table.client.transact_write_items();
            for seq in some {
                let delete = Delete::builder().table_name(&*self.table.table).set_key(Some(self.key(&batch_key(*seq))));
                let delete = delete.build().map_err(|e| self.table.wrong(e.to_string()))?;
                all = all.transact_items(TransactWriteItem::builder().delete(delete).build());
            }
            all.send().await.map_err(|e| self.table.fault(&e))?;
        }
        Ok(())
    }

    /// The numbers that are kept between these, both of them included.
    async fn kept(&self, from: u64, through: u64) -> Result<Vec<u64>, LogError> {
        let mut numbers = Vec::new();
        let mut pages = self.batches(from, 0).projection_expression("#i").into_paginator().items().send();
        while let Some(item) = pages.next().await {
            let seq = number_of(&item.map_err(|e| self.table.fault(&e))?);
            if seq > through {
                break;
            }
            numbers.push(seq);
        }
        Ok(numbers)
    }
}

/// Whether an error is the table's word that nothing was stored. An answer that did not come, or that tells of a fault on the
/// other side, is none.
fn is_refused(error: &SdkError<PutItemError>) -> bool {
    matches!(error, SdkError::ServiceError(said) if said.raw().status().is_client_error())
}

fn is_taken(error: &SdkError<PutItemError>) -> bool {
    error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception)
}

/// Sorts as the number does.
fn batch_key(seq: u64) -> String {
    format!("b{seq:020}")
}

fn part_key(hash: &Hash) -> String {
    format!("p{hash}")
}

fn number_of(item: &Item) -> u64 {
    let key = item.get("item").and_then(|key| key.as_s().ok());
    key.and_then(|key| key.get(1..)).and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

fn hash_of(item: &Item) -> Option<Hash> {
    let bytes = item.get("sha256")?.as_b().ok()?;
    bytes.as_ref().try_into().ok().map(Hash::from_bytes)
}

impl EventLog for DynamodbLog {
    fn read(&self, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Page, LogError>> {
        self.read_now(after, limit).boxed()
    }

    fn append(&self, expected: Cursor, batch: Batch) -> BoxFuture<'_, Result<Cursor, AppendError>> {
        self.append_now(expected, batch).boxed()
    }

    fn watch(&self, after: Cursor) -> BoxStream<'static, Result<Page, LogError>> {
        poll::watch(self.clone(), after, PACE)
    }

    fn trim(&self, through: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            let head = self.head().await?;
            let numbers = self.kept(1, through.seq.min(head.seq.saturating_sub(1))).await?;
            // The oldest first: whatever stops it, what is left has no gap.
            self.delete(&numbers).await
        }
        .boxed()
    }

    fn cut(&self, after: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            let found = self.get(&batch_key(after.seq), "sha256").await?.as_ref().and_then(hash_of);
            if found != Some(after.hash) && after != Cursor::START {
                return Ok(());
            }
            let mut numbers = self.kept(after.seq + 1, u64::MAX).await?;
            numbers.reverse();
            self.delete(&numbers).await
        }
        .boxed()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Option<Batch>, LogError>> {
        async move {
            let found = self.end(true, "body").await?;
            found.map(|(seq, item)| self.parse(seq, &item)).transpose()
        }
        .boxed()
    }

    fn place(&self) -> String {
        format!("{} ({})", self.table.place, self.stream)
    }
}

impl SnapshotStore for DynamodbLog {
    fn put_part(&self, bytes: Vec<u8>) -> BoxFuture<'_, Result<Hash, LogError>> {
        async move {
            let hash = Hash::of(&bytes);
            let mut item = self.key(&part_key(&hash));
            item.insert("body".into(), AttributeValue::B(Blob::new(bytes)));
            let put = self.table.client.put_item().table_name(&*self.table.table).set_item(Some(item));
            put.send().await.map_err(|e| self.table.fault(&e))?;
            Ok(hash)
        }
        .boxed()
    }

    fn part(&self, hash: Hash) -> BoxFuture<'_, Result<Option<Vec<u8>>, LogError>> {
        async move {
            let found = self.get(&part_key(&hash), "body").await?;
            Ok(found.and_then(|mut item| match item.remove("body") {
                Some(AttributeValue::B(body)) => Some(body.into_inner()),
                _ => None,
            }))
        }
        .boxed()
    }

    fn manifest(&self) -> BoxFuture<'_, Result<Option<String>, LogError>> {
        async move {
            let found = self.get(MANIFEST, "body").await?;
            Ok(found.and_then(|item| item.get("body")?.as_s().ok().cloned()))
        }
        .boxed()
    }

    fn put_manifest(
        &self,
        expected: Option<String>,
        text: String,
        parts: Vec<Hash>,
    ) -> BoxFuture<'_, Result<bool, LogError>> {
        async move {
            let mut item = self.key(MANIFEST);
            item.insert("body".into(), AttributeValue::S(text));
            let put = self.table.client.put_item().table_name(&*self.table.table).set_item(Some(item));
            let put = match expected {
                None => put.condition_expression("attribute_not_exists(#b)"),
                Some(text) => {
                    put.condition_expression("#b = :was").expression_attribute_values(":was", AttributeValue::S(text))
                }
            };
            // As with a batch: sent again, its own would be another's.
            let put = put.expression_attribute_names("#b", "body").customize();
            let put = put.config_override(Builder::new().retry_config(RetryConfig::disabled()));
            match put.send().await {
                Ok(_) => {}
                Err(error) if is_taken(&error) => return Ok(false),
                Err(error) => return Err(self.table.fault(&error)),
            }
            let query = self
                .table
                .client
                .query()
                .table_name(&*self.table.table)
                .key_condition_expression("#s = :s AND begins_with(#i, :p)")
                .projection_expression("#i")
                .expression_attribute_names("#s", "stream")
                .expression_attribute_names("#i", "item")
                .expression_attribute_values(":s", AttributeValue::S(self.stream.to_string()))
                .expression_attribute_values(":p", AttributeValue::S("p".into()))
                .consistent_read(true);
            let kept: Vec<String> = parts.iter().map(part_key).collect();
            let mut pages = query.into_paginator().items().send();
            while let Some(item) = pages.next().await {
                let item = item.map_err(|e| self.table.fault(&e))?;
                let Some(key) = item.get("item").and_then(|key| key.as_s().ok()) else { continue };
                if !kept.contains(key) {
                    let delete = self.table.client.delete_item().table_name(&*self.table.table);
                    delete.set_key(Some(self.key(key))).send().await.map_err(|e| self.table.fault(&e))?;
                }
            }
            Ok(true)
        }
        .boxed()
    }
}
