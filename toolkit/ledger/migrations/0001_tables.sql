-- Both dialects read this file. Times are UTC as ISO 8601 with microseconds: text order is time order.
CREATE TABLE event (
  id    BIGINT PRIMARY KEY,
  at    TEXT   NOT NULL,
  actor TEXT   NOT NULL,
  rack  TEXT   NOT NULL,
  node  TEXT   NOT NULL,
  kind  TEXT   NOT NULL,
  what  TEXT   NOT NULL,
  token BIGINT,
  body  TEXT   NOT NULL
);
CREATE INDEX event_by_subject ON event (rack, node, kind, what, id);

CREATE TABLE node (
  rack  TEXT   NOT NULL,
  node  TEXT   NOT NULL,
  state TEXT   NOT NULL,
  since TEXT   NOT NULL,
  event BIGINT NOT NULL REFERENCES event (id),
  PRIMARY KEY (rack, node)
);

CREATE TABLE run (
  id       TEXT   PRIMARY KEY,
  rack     TEXT   NOT NULL,
  node     TEXT   NOT NULL,
  stage    TEXT   NOT NULL,
  attempt  BIGINT NOT NULL,
  started  TEXT   NOT NULL,
  finished TEXT,
  outcome  TEXT,
  code     TEXT   NOT NULL DEFAULT '',
  part     TEXT   NOT NULL DEFAULT '',
  message  TEXT   NOT NULL DEFAULT '',
  next     TEXT   NOT NULL DEFAULT '',
  event    BIGINT NOT NULL REFERENCES event (id),
  UNIQUE (rack, node, stage, attempt),
  CHECK ((finished IS NULL) = (outcome IS NULL))
);
CREATE INDEX run_by_rack ON run (rack, event);

-- `value` is JSON: a number or a string, as it was measured.
CREATE TABLE measurement (
  event  BIGINT NOT NULL REFERENCES event (id),
  seq    BIGINT NOT NULL,
  run    TEXT   NOT NULL REFERENCES run (id),
  rack   TEXT   NOT NULL,
  scope  TEXT   NOT NULL,
  node   TEXT   NOT NULL,
  gpu    BIGINT NOT NULL,
  link   BIGINT NOT NULL,
  hca    TEXT   NOT NULL,
  metric TEXT   NOT NULL,
  unit   TEXT   NOT NULL,
  value  TEXT   NOT NULL,
  at     TEXT   NOT NULL,
  origin TEXT   NOT NULL,
  PRIMARY KEY (event, seq)
);
CREATE INDEX measurement_by_node ON measurement (rack, node, metric);
CREATE INDEX measurement_by_run ON measurement (run);

-- A row outlives its lease: the token only ever grows.
CREATE TABLE lease (
  name     TEXT    PRIMARY KEY,
  holder   TEXT    NOT NULL,
  token    BIGINT  NOT NULL,
  expires  TEXT    NOT NULL,
  released INTEGER NOT NULL
);
