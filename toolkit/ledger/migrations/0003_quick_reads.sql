-- What a reader asks most: the events of one kind of a rack (certificates, plans, moves), and the newest runs of a stage
-- over many racks. Without these each is a walk over all that the rack, or everybody, ever did.
CREATE INDEX event_by_kind ON event (rack, kind, id);
CREATE INDEX run_by_stage ON run (stage, event);
