"""Usual wrong answers to the exercise of the network's page, each with a part of its hint."""


def plain(client, key, value):
    return bool(client.set(key, value))


def patient(client, key, value):
    client.set(key, value)
    return client.wait(1, 0) >= 1


def too_early(client, key, value):
    copied = client.wait(1, 2000) >= 1
    client.set(key, value)
    return copied


def deaf(client, key, value):
    client.set(key, value)
    client.wait(1, 500)
    return True


def timid(client, key, value):
    client.set(key, value)
    return False


def short(client, key, value):
    client.set(f"{key}:new", value)
    return client.wait(1, 20_000) >= 1


def broken(client, key, value):
    return client.wait(1) >= 1


WRONG = {
    "n1": [
        (plain, "what does Redis answer, and when?"),
        (too_early, "what does Redis answer, and when?"),
        (patient, "a wait of 0 has no end"),
        (deaf, "what does Redis answer, and when?"),
        (timid, "let Redis wait for it"),
        (short, "under that key"),
        (broken, "fails with TypeError"),
    ],
}
