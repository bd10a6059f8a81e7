"""Writes the questions that the gate asks by default, `gate-reading.jsonl.gz` and `gate-known.jsonl`, into the package.

    python recipes/gate_data.py

Reading: questions on passages of the reader's dev data (SQuAD, CC BY-SA 4.0), at most `EACH` with and without an answer
a passage. Known facts: written here, of the kind that any language model has met often.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

SOURCE = Path(__file__).parent / "data" / "reader-dev.jsonl.gz"
TARGET = Path(__file__).parent.parent / "openbook" / "models" / "data"
PASSAGES, EACH = 100, 2

CAPITALS = """France Paris|Germany Berlin|Italy Rome|Spain Madrid|Portugal Lisbon|Japan Tokyo|China Beijing|Russia Moscow|
Egypt Cairo|Greece Athens|Ireland Dublin|Norway Oslo|Sweden Stockholm|Denmark Copenhagen|Finland Helsinki|Poland Warsaw|
Austria Vienna|Hungary Budapest|Cuba Havana|Canada Ottawa|Australia Canberra|Peru Lima|Chile Santiago|Kenya Nairobi|
Thailand Bangkok|Iran Tehran|Iraq Baghdad|Turkey Ankara|Ukraine Kyiv,Kiev|Belgium Brussels|India Delhi,New Delhi|Syria Damascus"""
CURRENCIES = """Japan yen|Russia ruble,rouble|China yuan,renminbi|Switzerland franc|Mexico peso|Sweden krona|Germany euro|
Denmark krone|Brazil real|Poland zloty|Israel shekel|Thailand baht|Turkey lira"""
AUTHORS = """Hamlet|William Shakespeare,Shakespeare;Romeo and Juliet|William Shakespeare,Shakespeare;Pride and Prejudice|Jane
Austen,Austen;Oliver Twist|Charles Dickens,Dickens;War and Peace|Leo Tolstoy,Tolstoy;Moby-Dick|Herman Melville,Melville;Don
Quixote|Cervantes;The Odyssey|Homer;Faust|Goethe;Frankenstein|Mary Shelley,Shelley;Dracula|Bram Stoker,Stoker;The Great
Gatsby|F. Scott Fitzgerald,Fitzgerald;Animal Farm|George Orwell,Orwell;The Hobbit|Tolkien;Crime and Punishment|Dostoevsky,Dostoyevsky"""
OTHERS = """What is the largest planet of the solar system?|Jupiter
Which planet is closest to the Sun?|Mercury
Which planet is known as the Red Planet?|Mars
What is the chemical symbol for gold?|Au
What is the chemical symbol for iron?|Fe
What is the chemical formula of water?|H2O
What gas do plants take in from the air for photosynthesis?|carbon dioxide,CO2
What is the largest ocean on Earth?|Pacific
What is the longest river in Africa?|Nile
What is the highest mountain in the world?|Everest
On which continent is Egypt?|Africa
On which continent is Brazil?|South America
On which continent is India?|Asia
How many days are in a week?|7,seven
How many months are in a year?|12,twelve
How many minutes are in an hour?|60,sixty
How many legs does a spider have?|8,eight
How many sides does a triangle have?|3,three
How many states are in the United States?|50,fifty
Who was the first president of the United States?|George Washington,Washington
Who was the first person to walk on the Moon?|Neil Armstrong,Armstrong
Who painted the Mona Lisa?|Leonardo da Vinci,Leonardo,da Vinci
Who developed the theory of relativity?|Albert Einstein,Einstein
Who discovered penicillin?|Alexander Fleming,Fleming
Who wrote On the Origin of Species?|Charles Darwin,Darwin
Who invented the telephone?|Alexander Graham Bell,Bell
In which year did World War II end?|1945
In which year did World War I begin?|1914
In which country is the Eiffel Tower?|France
In which country is the Great Wall?|China
In which city is the Statue of Liberty?|New York
In which city is the Colosseum?|Rome
Which language is spoken in Brazil?|Portuguese
Which language is spoken in Mexico?|Spanish
Which organ pumps blood through the body?|heart
What is the opposite of hot?|cold
What color is the sky on a clear day?|blue
What color do you get when you mix blue and yellow?|green
What do bees make?|honey
What is frozen water called?|ice
Which animal is known as the king of the jungle?|lion
Which metal is liquid at room temperature?|mercury
What is the square root of 81?|9,nine
What force keeps us on the ground?|gravity
What is the main language of England?|English
Which season comes after winter?|spring"""


def known() -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for row in CAPITALS.replace("\n", "").split("|"):
        country, _, city = row.partition(" ")
        found.append({"question": f"What is the capital of {country}?", "answers": city.split(",")})
    for row in CURRENCIES.replace("\n", "").split("|"):
        country, _, money = row.partition(" ")
        found.append({"question": f"What is the currency of {country}?", "answers": money.split(",")})
    for row in AUTHORS.replace("\n", " ").split(";"):
        work, _, author = row.partition("|")
        found.append({"question": f"Who wrote {work}?", "answers": author.split(",")})
    for row in OTHERS.splitlines():
        question, _, answers = row.partition("|")
        found.append({"question": question, "answers": answers.split(",")})
    return found


def reading() -> list[dict[str, object]]:
    chance = random.Random("gate")
    lines = [json.loads(line) for line in gzip.decompress(SOURCE.read_bytes()).decode().splitlines()]
    chosen = sorted(chance.sample(range(len(lines)), PASSAGES))
    found = []
    for line in (lines[i] for i in chosen):
        with_answer = [q for q in line["questions"] if q["answers"]]
        without = [q for q in line["questions"] if not q["answers"]]
        asked = [q for kind in (with_answer, without) for q in chance.sample(kind, min(EACH, len(kind)))]
        questions = [{"question": q["question"], "answers": list(dict.fromkeys(q["answers"]))} for q in asked]
        found.append({"title": line["title"], "passage": line["passage"], "questions": questions})
    return found


def main() -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in reading())
    (TARGET / "gate-reading.jsonl.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    facts = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in known())
    (TARGET / "gate-known.jsonl").write_text(facts, encoding="utf-8")
    asked = sum(len(json.loads(line)["questions"]) for line in text.splitlines())
    print(f"{asked} questions on passages, {len(facts.splitlines())} known facts")


if __name__ == "__main__":
    main()
