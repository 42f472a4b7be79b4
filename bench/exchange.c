/*
 * The measured side of the benchmark: what a daemon and a requester do, timed.
 *
 *     exchange exchange MOUNT WARMUP COUNT
 *     exchange helo     MOUNT WARMUP COUNT
 *
 * exchange: a requester writes a tag 66 packet to MOUNT/control/request and reads the answer; a
 * daemon, a child process, reads the packet from MOUNT/dev/ecryptfs and writes a RESPONSE.
 * helo: a daemon writes a HELO to MOUNT/dev/ecryptfs.
 *
 * Prints a line for each of COUNT iterations, the nanoseconds it took; WARMUP iterations before
 * them are not printed. The daemon handles exactly as many requests as there are iterations,
 * because not every transport lets a blocked reader be killed.
 */

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	HELO = 100,
	REQUEST = 102,
	RESPONSE = 103,

	HEADER = 5,                     /* type, counter */
	TAG_66 = 38,                    /* a key of 16 octets to encrypt */
	TAG_67 = 260,                   /* an encrypted key of 256 octets */
	MESSAGE = 8,                    /* index, data_len */
	REQUEST_SIZE = HEADER + 1 + MESSAGE + TAG_66,
	RESPONSE_SIZE = HEADER + 2 + MESSAGE + TAG_67,
};

/* The length of a packet's body in two octets, RFC 2440, section 4.2.2. */
static void put_length(unsigned char *at, unsigned int length)
{
	at[0] = (length - 192) / 256 + 192;
	at[1] = (length - 192) % 256;
}

static int open_file(const char *mount, const char *name)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", mount, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

static long long nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void must_write(int fd, const void *octets, size_t size, const char *what)
{
	ssize_t written = write(fd, octets, size);

	if (written < 0)
		err(1, "writing %s", what);
	if ((size_t)written != size)
		errx(1, "writing %s: %zd octets taken of %zu", what, written, size);
}

static void must_read(int fd, void *octets, size_t capacity, size_t size, const char *what)
{
	ssize_t got = read(fd, octets, capacity);

	if (got < 0)
		err(1, "reading %s", what);
	if ((size_t)got != size)
		errx(1, "reading %s: %zd octets instead of %zu", what, got, size);
}

static void answer(int device, long requests)
{
	unsigned char request[4096], response[RESPONSE_SIZE] = { RESPONSE };
	unsigned int data_len = TAG_67;
	unsigned char *message = response + HEADER + 2, *tag_67 = message + MESSAGE;

	put_length(response + HEADER, MESSAGE + TAG_67);
	memcpy(message + 4, &data_len, 4);
	memset(tag_67, 0xa5, TAG_67);
	tag_67[0] = 67;
	tag_67[1] = 0;
	put_length(tag_67 + 2, TAG_67 - 4);
	while (requests--) {
		must_read(device, request, sizeof(request), REQUEST_SIZE, "a request from the device");
		if (request[0] != REQUEST)
			errx(1, "the device sent a packet of type %d", request[0]);
		memcpy(response + 1, request + 1, 4);                    /* counter */
		memcpy(message, request + HEADER + 1, 4);                /* index */
		must_write(device, response, sizeof(response), "a response to the device");
	}
}

static void exchange(const char *mount, long warmup, long count)
{
	unsigned char tag_66[TAG_66] = { 66, 16 }, reply[4096];
	int requester, status, device = open_file(mount, "dev/ecryptfs");
	long long start, end;
	pid_t daemon;

	memset(tag_66 + 2, '5', 16);            /* signature */
	tag_66[18] = 19;
	tag_66[19] = 7;                         /* AES-128; key and checksum are 0 */
	daemon = fork();
	if (daemon < 0)
		err(1, "fork");
	if (daemon == 0) {
		close(STDOUT_FILENO);           /* or whoever reads our output waits for us, too */
		answer(device, warmup + count);
		_exit(0);
	}
	close(device);
	requester = open_file(mount, "control/request");
	for (long i = -warmup; i < count; i++) {
		start = nanoseconds();
		must_write(requester, tag_66, sizeof(tag_66), "a request");
		must_read(requester, reply, sizeof(reply), TAG_67, "an answer");
		end = nanoseconds();
		if (i >= 0)
			printf("%lld\n", end - start);
	}
	if (waitpid(daemon, &status, 0) != daemon || status != 0)
		errx(1, "the daemon failed");
}

static void helo(const char *mount, long warmup, long count)
{
	static const unsigned char packet[HEADER] = { HELO };
	int device = open_file(mount, "dev/ecryptfs");
	long long start, end;

	for (long i = -warmup; i < count; i++) {
		start = nanoseconds();
		must_write(device, packet, sizeof(packet), "a HELO");
		end = nanoseconds();
		if (i >= 0)
			printf("%lld\n", end - start);
	}
}

int main(int argc, char **argv)
{
	if (argc != 5)
		errx(2, "usage: exchange exchange|helo MOUNT WARMUP COUNT");
	if (strcmp(argv[1], "exchange") == 0)
		exchange(argv[2], atol(argv[3]), atol(argv[4]));
	else if (strcmp(argv[1], "helo") == 0)
		helo(argv[2], atol(argv[3]), atol(argv[4]));
	else
		errx(2, "there is no measure %s", argv[1]);
	if (fflush(stdout) != 0)
		err(1, "writing the times");
	return 0;
}
