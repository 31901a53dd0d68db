//! Trust anchors and revocation: certificates, db, dbx, SBAT.
