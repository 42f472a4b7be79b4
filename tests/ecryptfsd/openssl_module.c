/*
 * The key module "openssl" for the real ecryptfsd, which Debian does not ship: RSA keys in PEM files.
 *
 * Only for tests: ecryptfsd loads it from the directory of its key modules and calls encrypt and
 * decrypt. A key can neither be made nor put into a keyring with it; libecryptfs fills in what is
 * missing for that. What it is given and gives, as the module of ecryptfs-utils of that name:
 *
 *     blob        u16 length | path, NUL | u16 length | passphrase, NUL      (little endian; the
 *                 lengths count the NULs)
 *     ciphertext  RSA with OAEP: SHA-1, MGF1 with SHA-1, no label
 *     to NULL     only the size is asked for: that of the modulus, which no result exceeds
 *
 * Built with the flags that pkg-config has for libecryptfs and libcrypto, and -shared -fPIC.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <ecryptfs.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

typedef int start_operation(EVP_PKEY_CTX *context);
typedef int operation(EVP_PKEY_CTX *context, unsigned char *to, size_t *to_size,
		      const unsigned char *from, size_t from_size);

/* The text at *place, which is moved behind it; NULL if it does not end where its length says. */
static char *take_text(unsigned char **place)
{
	size_t length = (*place)[0] | (*place)[1] << 8;
	char *text = (char *)*place + 2;

	if (length == 0 || strnlen(text, length) != length - 1)
		return NULL;
	*place += 2 + length;
	return text;
}

static EVP_PKEY *read_key(unsigned char *blob)
{
	char *path = take_text(&blob);
	char *passphrase = path ? take_text(&blob) : NULL;
	EVP_PKEY *key = NULL;
	FILE *file;

	if (!passphrase)
		return NULL;
	file = fopen(path, "r");
	if (!file)
		return NULL;
	/* With a passphrase, even an empty one, OpenSSL does not ask for it on a terminal. */
	key = PEM_read_PrivateKey(file, NULL, NULL, passphrase);
	fclose(file);
	return key;
}

/* SHA-1, MGF1 with SHA-1 and no label are OpenSSL's defaults for OAEP; said all the same. */
static int use_oaep(EVP_PKEY_CTX *context)
{
	return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_OAEP_PADDING) > 0 &&
	       EVP_PKEY_CTX_set_rsa_oaep_md(context, EVP_sha1()) > 0 &&
	       EVP_PKEY_CTX_set_rsa_mgf1_md(context, EVP_sha1()) > 0;
}

static int use_key(start_operation *start, operation *operate, char *to, size_t *to_size,
		   char *from, size_t from_size, unsigned char *blob)
{
	EVP_PKEY *key = read_key(blob);
	EVP_PKEY_CTX *context = key ? EVP_PKEY_CTX_new(key, NULL) : NULL;
	int rc = -EINVAL;

	if (context && start(context) > 0 && use_oaep(context) &&
	    operate(context, (unsigned char *)to, to_size, (unsigned char *)from, from_size) > 0)
		rc = 0;
	EVP_PKEY_CTX_free(context);
	EVP_PKEY_free(key);
	return rc;
}

static int encrypt(char *to, size_t *to_size, char *from, size_t from_size, unsigned char *blob,
		   int blob_type)
{
	(void)blob_type; /* ecryptfsd knows the path and the passphrase only as a blob */
	return use_key(EVP_PKEY_encrypt_init, EVP_PKEY_encrypt, to, to_size, from, from_size, blob);
}

static int decrypt(char *to, size_t *to_size, char *from, size_t from_size, unsigned char *blob,
		   int blob_type)
{
	(void)blob_type;
	return use_key(EVP_PKEY_decrypt_init, EVP_PKEY_decrypt, to, to_size, from, from_size, blob);
}

static int init(char **alias)
{
	*alias = strdup(ECRYPTFS_KEY_MOD_OPENSSL); /* freed by libecryptfs */
	return *alias ? 0 : -ENOMEM;
}

static struct ecryptfs_key_mod_ops operations = {
	.init = init,
	.encrypt = encrypt,
	.decrypt = decrypt,
};

/* What libecryptfs looks for in a key module. */
struct ecryptfs_key_mod_ops *get_key_mod_ops(void)
{
	ecryptfs_fill_in_dummy_ops(&operations);
	return &operations;
}
