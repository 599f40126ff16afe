CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP;
END $$;

CREATE FUNCTION follow_newest_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id <> (SELECT coalesce(max(id), 0) + 1 FROM event) THEN
    RAISE EXCEPTION 'event is append-only: an event follows the newest one';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER event_is_appended BEFORE INSERT ON event
  FOR EACH ROW EXECUTE FUNCTION follow_newest_event();
CREATE TRIGGER event_is_not_changed BEFORE UPDATE OR DELETE ON event
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_is_not_truncated BEFORE TRUNCATE ON event
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER measurement_is_not_changed BEFORE UPDATE OR DELETE ON measurement
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER measurement_is_not_truncated BEFORE TRUNCATE ON measurement
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER run_is_not_reopened BEFORE UPDATE ON run
  FOR EACH ROW WHEN (OLD.finished IS NOT NULL) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER run_is_not_deleted BEFORE DELETE ON run
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER run_is_not_truncated BEFORE TRUNCATE ON run
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
