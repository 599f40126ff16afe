"""What the codes of a cable work order mean and what to do."""

from __future__ import annotations

FABRIC_CODES = {
    "FABRIC_CABLES_SWAPPED": "Two cables are in each other's port. Both links are up and count no errors: only the "
    "comparison with the plan shows it. Exchange the two ends named; the other two ends do as well, not both.",
    "FABRIC_CABLES_ROTATED": "Three or more cables are in one another's ports, in a ring. The steps are swaps, in "
    "their order: each sets one cable right, the last one two. No other way takes fewer.",
    "FABRIC_CABLE_MISPLACED": "A cable is in a port that is not its own, and its own is free: move the end named. "
    "Where the discovery was incomplete, look first whether the port is free.",
    "FABRIC_CABLE_UNPLANNED": "A cable that the rack file does not have, or to a device that it does not have. Take "
    "it out or write it into the rack file; until then the fabric is not the planned one.",
    "FABRIC_LINK_DOWN": "No link on a planned cable; the port named was seen dark (Polling: no light from the other "
    "end). Reseat both ends; if it stays, `ibstat` on the node tells cable, HCA and node apart.",
    "FABRIC_LINK_MISSING": "A planned cable is not in the discovery, and the state of its ports was not seen. As "
    "FABRIC_LINK_DOWN; where the discovery is incomplete the cable may be well: discover again first.",
    "FABRIC_PORT_DISABLED": "The port is switched off by setting, so no cable can help. Enable it (`ibportstate LID "
    "PORT enable`, or the switch's own command) once it is known who switched it off and why.",
    "FABRIC_PEER_SILENT": "The port has light, and what is behind it did not answer the discovery: lost management "
    "packets, firmware that hangs, a node in reboot, an M_Key, a GUID that is there twice. Undecided until it "
    "answers.",
    "FABRIC_NODE_MISSING": "None of a node's cables is seen. That is one cause, not eight: the node is off, its "
    "driver is not loaded, or it was never cabled. The line says what would settle it.",
    "FABRIC_SWITCH_MISSING": "A planned switch is not in the fabric. Its cables are not counted one by one. Look at "
    "its power, its fans and its console.",
    "FABRIC_SWITCH_UNIDENTIFIED": "Switches answer, and none of them can be taken for the planned one: not by GUID, "
    "not by name, not by its cables. Write `guid:` at the unit in the rack file, or set the name on the switch.",
    "FABRIC_SWITCHES_EXCHANGED": "A switch has, port by port, the cables that the plan has on another. Its name or "
    "its GUID in the rack file is wrong, or two boxes stand in each other's place. Not one cable is to be moved "
    "for it.",
    "FABRIC_SWITCH_REPLACED": "A switch of the planned name has another GUID than the rack file says.",
    "FABRIC_HCA_REPLACED": "In the place of a planned HCA is one with a GUID that the plan does not have. If the "
    "board was replaced, write its GUID into the rack file: certificates name it. If not, find out whose it is.",
    "FABRIC_HCA_MOVED": "An HCA of the plan is in the place of another one: its name and its cable say so, its GUID "
    "says otherwise. Boards were exchanged between nodes, or GUIDs between lines of the rack file. No cable is "
    "wrong.",
    "FABRIC_GUIDS_UNFILLED": "Most HCAs have other GUIDs than the rack file, though names and places fit: the file "
    "was written before the GUIDs were known, or this is another fabric with the same names.",
    "FABRIC_DUPLICATE_GUID": "Two boards answer with one GUID. The subnet manager routes to one of them at best. "
    "Query both with flint; the one with another's GUID was flashed with it.",
    "FABRIC_DUPLICATE_LID": "Two devices hold one LID, so packets reach the wrong one. The next sweep of the subnet "
    "manager heals it; if it comes back, a second manager gives out LIDs. ibidsverify does not see it.",
    "FABRIC_UNREAD": "What a node says of its own ports (P_Keys, firmware, board) could not be read, so it is open "
    "whether they are as they should be. The node is off, or the tool failed on it; the others' cables are judged.",
    "FABRIC_SM_NONE": "No subnet manager is master: ports stay in Initialize and carry nothing. Start opensm or UFM.",
    "FABRIC_SM_IDLE": "Ports have light and none is Active: no subnet manager does its work on this fabric. One "
    "finding, not one for each port.",
    "FABRIC_SM_TWO_MASTERS": "Two subnet managers are master at once: their keys differ (sm_key, M_Key, "
    "allowed_sm_guids), or the fabric was in two pieces. They undo each other's routes and LIDs. Leave one.",
    "FABRIC_SM_PRIORITY": "A standby of a higher priority did not take over from the master.",
    "FABRIC_PORT_NOT_ACTIVE": "The link trained, and the subnet manager does not bring it up, though others are "
    "Active. Its log says why.",
    "FABRIC_PKEY_LIMITED": "The port holds P_Keys of limited membership only (bit 15 clear, such as 0x7fff): "
    "limited members do not reach one another. Make it a full member in partitions.conf or UFM.",
    "FABRIC_PKEY_MISSING": "The port holds no P_Key: the subnet manager put it into no partition.",
    "FABRIC_LINK_NARROW": "The cable trained with fewer lanes than it has. Replace it; if the new one is narrow "
    "too, a port is at fault: the swap of either end to another port tells which.",
    "FABRIC_LINK_SLOW": "The cable trained at a lower speed than planned. Reseat it, then look at the speeds "
    "enabled at both ports and at the cable's rating. All cables alike slow is a setting, or the rack file's rate.",
    "FABRIC_SYMBOL_ERRORS": "Bits arrived wrong on this cable while the counters were watched. Clean and reseat, "
    "then replace the cable, then suspect the ports. Growth is judged, never a lifetime value.",
    "FABRIC_LINK_DOWNED": "The link went down while the counters were watched. As FABRIC_SYMBOL_ERRORS; a node that "
    "rebooted meanwhile does it too.",
    "FABRIC_LINK_RECOVERIES": "The link retrained while the counters were watched. As FABRIC_SYMBOL_ERRORS.",
    "FABRIC_RECEIVE_ERRORS": "Packets arrived damaged on this cable. As FABRIC_SYMBOL_ERRORS.",
    "FABRIC_LINK_INTEGRITY": "The link crossed its own threshold of local errors. As FABRIC_SYMBOL_ERRORS.",
    "FABRIC_BUFFER_OVERRUNS": "The receiver's buffers overran: flow control packets were lost. As "
    "FABRIC_SYMBOL_ERRORS.",
    "FABRIC_PSID_DIFFERS": "Boards of one kind are of different make (PSID). Firmware is comparable only within one.",
    "FABRIC_FIRMWARE_DIFFERS": "Boards of one make run different firmware. Bring the ones named to the plan's version.",
    "FABRIC_INBAND_MISCABLED": "An Ethernet cable leads elsewhere than planned, by LLDP.",
    "FABRIC_INBAND_UNHEARD": "Nothing was heard by LLDP on a planned Ethernet port: the link is down, or the switch "
    "does not send LLDP. Neither a wrong cable nor a right one.",
    "FABRIC_OTHER": "Nothing of the plan is in what was discovered: the tools were run on another fabric, or with "
    "the wrong adapter. Nothing was compared.",
}
