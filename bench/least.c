/*
 * The least that a server can take: what the benchmark compares ours with.
 *
 *     least MOUNT
 *
 * Serves MOUNT/dev/ecryptfs and MOUNT/control/request in the foreground, until SIGTERM, with
 * libfuse's low-level API and its single-threaded loop. It does what exchange.c needs and no more:
 * one daemon, one requester, one message on its way to each, index and counter always 0, and no
 * checks but the one that keeps it within its buffers.
 *
 * What makes it fast: a reader is answered before the writer that woke it, as in our server; on
 * one processor that saves 5 %. Without write_buf and fuse_reply_data libfuse splices nothing, so
 * that a request takes one read and one writev.
 */

#define FUSE_USE_VERSION 34

#include <err.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
	REQUEST = 102,
	RESPONSE = 103,

	HEADER = 5,                     /* type, counter */
	MESSAGE = 8,                    /* index, data_len */
	REQUEST_PREFIX = HEADER + 1 + MESSAGE,
	RESPONSE_PREFIX = HEADER + 2 + MESSAGE,
	DATA_MAX = 191 - MESSAGE,       /* with a packet length of one octet */
};

enum { ROOT = FUSE_ROOT_ID, DEV, CONTROL, DEVICE, CONTROL_REQUEST, NODES };

static const struct {
	fuse_ino_t parent;
	const char *name;
	mode_t mode;
} nodes[NODES] = {
	[ROOT] = { ROOT, "", S_IFDIR | 0755 },
	[DEV] = { ROOT, "dev", S_IFDIR | 0755 },
	[CONTROL] = { ROOT, "control", S_IFDIR | 0755 },
	[DEVICE] = { DEV, "ecryptfs", S_IFREG | 0600 },
	[CONTROL_REQUEST] = { CONTROL, "request", S_IFREG | 0600 },
};

static const double forever = 1e9;      /* seconds that the kernel may remember what we said */

/* What is to be read from a file: a message that waits for a READ, or a READ that waits for one. */
static struct inbox {
	fuse_req_t reader;
	size_t size;
	char octets[4096];
} inboxes[NODES];

static void deliver(struct inbox *inbox, const void *octets, size_t size)
{
	if (inbox->reader) {
		fuse_reply_buf(inbox->reader, octets, size);
		inbox->reader = NULL;
	} else {
		memcpy(inbox->octets, octets, size);
		inbox->size = size;
	}
}

static void least_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	struct inbox *inbox = &inboxes[ino];

	(void)size, (void)offset, (void)fi;
	if (inbox->size) {
		fuse_reply_buf(req, inbox->octets, inbox->size);
		inbox->size = 0;
	} else {
		inbox->reader = req;
	}
}

static void least_write(fuse_req_t req, fuse_ino_t ino, const char *octets, size_t size,
			off_t offset, struct fuse_file_info *fi)
{
	char request[REQUEST_PREFIX + DATA_MAX] = { REQUEST };
	unsigned int data_len = size;

	(void)offset, (void)fi;
	if (size > (ino == DEVICE ? sizeof(inboxes->octets) : DATA_MAX)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (ino == CONTROL_REQUEST) {
		request[HEADER] = MESSAGE + size;
		memcpy(request + REQUEST_PREFIX - 4, &data_len, 4);
		memcpy(request + REQUEST_PREFIX, octets, size);
		deliver(&inboxes[DEVICE], request, REQUEST_PREFIX + size);
	} else if (size > RESPONSE_PREFIX && octets[0] == RESPONSE) {
		deliver(&inboxes[CONTROL_REQUEST], octets + RESPONSE_PREFIX,
			size - RESPONSE_PREFIX);
	}                               /* else it is a HELO */
	fuse_reply_write(req, size);
}

static void least_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = 1;
	fi->nonseekable = 1;
	fuse_reply_open(req, fi);
}

static struct stat attributes(fuse_ino_t ino)
{
	return (struct stat){ .st_ino = ino, .st_mode = nodes[ino].mode, .st_nlink = 1 };
}

static void least_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat attr = attributes(ino);

	(void)fi;
	fuse_reply_attr(req, &attr, forever);
}

static void least_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	for (fuse_ino_t ino = DEV; ino < NODES; ino++) {
		if (nodes[ino].parent == parent && strcmp(nodes[ino].name, name) == 0) {
			fuse_reply_entry(req, &(struct fuse_entry_param){
				.ino = ino, .attr = attributes(ino),
				.attr_timeout = forever, .entry_timeout = forever });
			return;
		}
	}
	fuse_reply_err(req, ENOENT);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = least_lookup,
	.getattr = least_getattr,
	.open = least_open,
	.read = least_read,
	.write = least_write,
};

int main(int argc, char **argv)
{
	struct fuse_args none = FUSE_ARGS_INIT(1, argv);
	struct fuse_session *session;
	int status;

	if (argc != 2)
		errx(2, "usage: least MOUNT");
	session = fuse_session_new(&none, &operations, sizeof(operations), NULL);
	if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, argv[1]))
		return 1;               /* libfuse has said why */
	printf("ready: %s/dev/ecryptfs\n", argv[1]);
	fflush(stdout);
	status = fuse_session_loop(session);    /* a signal's number is a good end, too */
	fuse_session_unmount(session);
	return status < 0;
}
