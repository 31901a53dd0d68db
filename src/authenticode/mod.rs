//! Authenticode: the PE image digest and the PKCS#7 signatures over it.
