/* Firmware's part by mbedTLS: a fresh key, and a CSR for it. Writes both to standard output, the key first.
   mbedtls-csr ec|rsa SUBJECT, e.g. mbedtls-csr ec CN=sn-1 */
#include <stdio.h>
#include <string.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/pk.h>
#include <mbedtls/rsa.h>
#include <mbedtls/x509_csr.h>

static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context random_source;
static unsigned char text[8192];

static int make_key (mbedtls_pk_context *key, const char *kind)
{
    int is_rsa = strcmp(kind, "rsa") == 0;
    int failed = mbedtls_pk_setup(key, mbedtls_pk_info_from_type(is_rsa ? MBEDTLS_PK_RSA : MBEDTLS_PK_ECKEY));
    if (failed) return failed;
    if (is_rsa) return mbedtls_rsa_gen_key(mbedtls_pk_rsa(*key), mbedtls_ctr_drbg_random, &random_source, 2048, 65537);
    return mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), mbedtls_ctr_drbg_random, &random_source);
}

static int make_csr (mbedtls_pk_context *key, const char *subject)
{
    mbedtls_x509write_csr csr;
    mbedtls_x509write_csr_init(&csr);
    mbedtls_x509write_csr_set_md_alg(&csr, MBEDTLS_MD_SHA256);
    mbedtls_x509write_csr_set_key(&csr, key);
    int failed = mbedtls_x509write_csr_set_subject_name(&csr, subject);
    if (!failed) failed = mbedtls_x509write_csr_set_key_usage(&csr, MBEDTLS_X509_KU_DIGITAL_SIGNATURE);
    if (!failed) failed = mbedtls_x509write_csr_pem(&csr, text, sizeof text, mbedtls_ctr_drbg_random, &random_source);
    mbedtls_x509write_csr_free(&csr);
    return failed;
}

int main (int count, char **arguments)
{
    if (count != 3) return 2;
    mbedtls_pk_context key;
    mbedtls_pk_init(&key);
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random_source);
    int failed = mbedtls_ctr_drbg_seed(&random_source, mbedtls_entropy_func, &entropy, NULL, 0);
    if (!failed) failed = make_key(&key, arguments[1]);
    if (!failed) failed = mbedtls_pk_write_key_pem(&key, text, sizeof text);
    if (!failed) fputs((char *) text, stdout);
    if (!failed) failed = make_csr(&key, arguments[2]);
    if (!failed) fputs((char *) text, stdout);
    if (failed) fprintf(stderr, "mbedTLS: -0x%04x\n", (unsigned) -failed);
    return failed ? 1 : 0;
}
