-- The insert triggers also stop INSERT OR REPLACE, which deletes without firing delete triggers.
CREATE TRIGGER event_is_appended BEFORE INSERT ON event
WHEN NEW.id <> (SELECT coalesce(max(id), 0) + 1 FROM event)
BEGIN SELECT RAISE(ABORT, 'event is append-only: an event follows the newest one'); END;

CREATE TRIGGER event_is_not_updated BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'event is append-only: it is never updated'); END;

CREATE TRIGGER event_is_not_deleted BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'event is append-only: it is never deleted'); END;

CREATE TRIGGER measurement_is_appended BEFORE INSERT ON measurement
WHEN EXISTS (SELECT 1 FROM measurement WHERE event = NEW.event AND seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'measurement is append-only: this one is recorded'); END;

CREATE TRIGGER measurement_is_not_updated BEFORE UPDATE ON measurement
BEGIN SELECT RAISE(ABORT, 'measurement is append-only: it is never updated'); END;

CREATE TRIGGER measurement_is_not_deleted BEFORE DELETE ON measurement
BEGIN SELECT RAISE(ABORT, 'measurement is append-only: it is never deleted'); END;

CREATE TRIGGER run_is_appended BEFORE INSERT ON run WHEN EXISTS (SELECT 1 FROM run WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'run is append-only: this one is recorded'); END;

CREATE TRIGGER run_is_not_reopened BEFORE UPDATE ON run WHEN OLD.finished IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'run is finished: it is never updated again'); END;

CREATE TRIGGER run_is_not_deleted BEFORE DELETE ON run
BEGIN SELECT RAISE(ABORT, 'run is append-only: it is never deleted'); END;
