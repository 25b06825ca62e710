/* Eclipse Paho for C under test: paho SCENARIO HOST:PORT WARM_UP COUNT, one line of JSON to standard output.
 *
 * The asynchronous interface as its documentation says: a message is done when its onSuccess is called. A semaphore has as
 * many places as messages may be under way. */

#include <MQTTAsync.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define TOPIC_NAME "bench/sink"
#define PAYLOAD_BYTES 64
#define WINDOW 100
/* At QoS 0 a message is done when it is written. */
#define WINDOW_QOS0 1000
#define KEEP_ALIVE_SECONDS 300
/* Clients that connect at once: it can take two seconds until the library notices that a connection stands. */
#define CONNECTS_AT_ONCE 250

static char version[32] = "";
static sem_t done, room;
static uint64_t warm_up, count, received;

struct meter {
    double user, system, began, bytes;
};
static struct meter meter;

static void fail(const char *what, int code)
{
    printf("{\"version\":\"%s\",\"cpu_seconds\":0,\"user_seconds\":0,\"system_seconds\":0,\"elapsed_seconds\":0,"
           "\"grown_bytes\":0,\"fault\":\"%s: %d\"}\n", version, what, code);
    fflush(stdout);
    _exit(0);
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static double anonymous_bytes(void)
{
    char line[256];
    double kibibytes = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Anonymous: %lf", &kibibytes) == 1)
            break;
    fclose(file);
    return kibibytes * 1024;
}

static struct meter observe(void)
{
    struct rusage usage;
    struct timespec now;
    struct meter meter;
    getrusage(RUSAGE_SELF, &usage);
    clock_gettime(CLOCK_MONOTONIC, &now);
    meter.user = seconds(usage.ru_utime);
    meter.system = seconds(usage.ru_stime);
    meter.began = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    meter.bytes = anonymous_bytes();
    return meter;
}

static void reply(void)
{
    struct meter now = observe();
    double user = now.user - meter.user, system = now.system - meter.system;
    printf("{\"version\":\"%s\",\"cpu_seconds\":%f,\"user_seconds\":%f,\"system_seconds\":%f,\"elapsed_seconds\":%f,"
           "\"grown_bytes\":%.0f,\"fault\":null}\n", version, user + system, user, system, now.began - meter.began,
           now.bytes - meter.bytes);
    fflush(stdout);
}

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        ;
}

static void on_done(void *context, MQTTAsync_successData5 *response)
{
    (void)context;
    (void)response;
    sem_post(&done);
}

static void on_failure(void *context, MQTTAsync_failureData5 *response)
{
    (void)context;
    fail("failed", response ? response->code : 0);
}

static void on_published(void *context, MQTTAsync_successData5 *response)
{
    (void)context;
    (void)response;
    sem_post(&room);
}

static int on_message(void *context, char *topic_name, int topic_bytes, MQTTAsync_message *message)
{
    uint64_t sequence = 0;
    (void)context;
    (void)topic_bytes;
    if (message->payloadlen != PAYLOAD_BYTES)
        fail("a payload was altered", message->payloadlen);
    for (int at = 4; at < 12; at++)
        sequence = sequence << 8 | ((unsigned char *)message->payload)[at];
    if (sequence != received)
        fail("lost, repeated or reordered", (int)received);
    received++;
    MQTTAsync_freeMessage(&message);
    MQTTAsync_free(topic_name);
    if (received == warm_up)
        meter = observe();
    if (received == warm_up + count)
        sem_post(&done);
    return 1;
}

/* Begins to connect; done is posted in the end. */
static MQTTAsync begin_to_connect(const char *url, const char *client_id)
{
    MQTTAsync client;
    MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer5;
    MQTTAsync_connectOptions connect = MQTTAsync_connectOptions_initializer5;
    int code;
    create.maxBufferedMessages = 2 * WINDOW_QOS0;
    code = MQTTAsync_createWithOptions(&client, url, client_id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &create);
    if (code != MQTTASYNC_SUCCESS)
        fail("create", code);
    code = MQTTAsync_setCallbacks(client, NULL, NULL, on_message, NULL);
    if (code != MQTTASYNC_SUCCESS)
        fail("callbacks", code);
    connect.keepAliveInterval = KEEP_ALIVE_SECONDS;
    connect.cleanstart = 1;
    connect.maxInflight = WINDOW;
    connect.onSuccess5 = on_done;
    connect.onFailure5 = on_failure;
    code = MQTTAsync_connect(client, &connect);
    if (code != MQTTASYNC_SUCCESS)
        fail("connect", code);
    return client;
}

static MQTTAsync connect_one(const char *url, const char *client_id)
{
    MQTTAsync client = begin_to_connect(url, client_id);
    wait_for(&done);
    return client;
}

static void disconnect(MQTTAsync client)
{
    MQTTAsync_disconnectOptions options = MQTTAsync_disconnectOptions_initializer5;
    int code;
    options.timeout = 10000;
    options.onSuccess5 = on_done;
    options.onFailure5 = on_failure;
    code = MQTTAsync_disconnect(client, &options);
    if (code != MQTTASYNC_SUCCESS)
        fail("disconnect", code);
    wait_for(&done);
}

static void publish_some(MQTTAsync client, int qos, uint64_t first, uint64_t messages)
{
    int window = qos ? WINDOW : WINDOW_QOS0;
    unsigned char payload[PAYLOAD_BYTES];
    MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
    MQTTAsync_message message = MQTTAsync_message_initializer;
    options.onSuccess5 = on_published;
    options.onFailure5 = on_failure;
    memset(payload, '.', sizeof payload);
    memset(payload, 0, 4);
    message.payload = payload;
    message.payloadlen = PAYLOAD_BYTES;
    message.qos = qos;
    for (uint64_t sequence = first; sequence < first + messages; sequence++) {
        int code;
        for (int at = 0; at < 8; at++)
            payload[4 + at] = (unsigned char)(sequence >> (56 - 8 * at));
        wait_for(&room);
        code = MQTTAsync_sendMessage(client, TOPIC_NAME, &message, &options);
        if (code != MQTTASYNC_SUCCESS)
            fail("send", code);
    }
    /* All places are free when all is done. */
    for (int place = 0; place < window; place++)
        wait_for(&room);
    for (int place = 0; place < window; place++)
        sem_post(&room);
}

int main(int argc, char **argv)
{
    char url[64];
    const char *scenario;
    int waiting = 0;
    MQTTAsync_nameValue *information;
    if (argc != 5) {
        fprintf(stderr, "usage: %s SCENARIO HOST:PORT WARM_UP COUNT\n", argv[0]);
        return 2;
    }
    scenario = argv[1];
    snprintf(url, sizeof url, "tcp://%s", argv[2]);
    warm_up = strtoull(argv[3], NULL, 10);
    count = strtoull(argv[4], NULL, 10);
    for (information = MQTTAsync_getVersionInfo(); information->name; information++)
        if (strcmp(information->name, "Version") == 0)
            snprintf(version, sizeof version, "%s", information->value);
    sem_init(&done, 0, 0);
    meter = observe();
    if (strcmp(scenario, "idle") == 0) {
        for (uint64_t number = 0; number < warm_up + count; number++) {
            char client_id[32];
            if (number == warm_up) {
                for (; waiting > 0; waiting--)
                    wait_for(&done);
                meter = observe();
            }
            snprintf(client_id, sizeof client_id, "i%08" PRIu64, number);
            begin_to_connect(url, client_id);
            if (++waiting == CONNECTS_AT_ONCE)
                for (; waiting > 0; waiting--)
                    wait_for(&done);
        }
        for (; waiting > 0; waiting--)
            wait_for(&done);
        reply();
        /* Ten thousand farewells are no part of it. */
        _exit(0);
    } else if (strncmp(scenario, "publish", 7) == 0) {
        int qos = strcmp(scenario, "publish-qos0") != 0;
        MQTTAsync client = connect_one(url, "publisher");
        sem_init(&room, 0, qos ? WINDOW : WINDOW_QOS0);
        publish_some(client, qos, 0, warm_up);
        meter = observe();
        publish_some(client, qos, warm_up, count);
        disconnect(client);
        reply();
    } else {
        int qos = strcmp(scenario, "receive-qos0") != 0;
        MQTTAsync client = connect_one(url, "subscriber");
        MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
        int code;
        options.onFailure5 = on_failure;
        code = MQTTAsync_subscribe(client, TOPIC_NAME, qos, &options);
        if (code != MQTTASYNC_SUCCESS)
            fail("subscribe", code);
        wait_for(&done);
        reply();
        disconnect(client);
    }
    return 0;
}
