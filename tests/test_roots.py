"""Root verb and object: hand-labelled instructions, and what must hold for any text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.steps.english import english
from selfinstruct.steps.roots import root_verb_object

# Labelled by hand, by the paper's rule: the sentence's root verb and its direct noun object. None
# stands for an object that is a pronoun, a name, a clause, a quotation or behind a preposition,
# and for questions without another verb than "be".
LABELLED = """
Write a short poem about autumn. | write poem
Write a formal, polite letter to the landlord. | write letter
Write three haikus on rain. | write haiku
Write me a bedtime story with a dragon in it. | write story
Write down the steps for changing a tyre. | write step
Write an SQL query that counts orders by month. | write query
Please summarize the meeting notes below. | summarize note
Please help me draft an email to my teacher | draft email
Kindly proofread this paragraph. | proofread paragraph
Could you please suggest a name for my bakery? | suggest name
Can you explain why the sky is blue? | explain -
Would you translate the sentence into Spanish? | translate sentence
I want you to act as a travel guide. | act -
I need you to rank these cities by population. | rank city
I'd like you to compose a melody for the flute. | compose melody
Help me plan a birthday party. | plan party
Let's design a logo for a tea shop. | design logo
Your task is to classify the review as positive or negative. | classify review
You will be given a list of words. Sort the words by length. | sort word
You are a chef. Invent a dessert with figs. | invent dessert
You are given two numbers, compute their sum. | compute sum
In this task you are asked to replace the verb of a sentence. | replace verb
Given the following text, summarize it. | summarize -
Given a recipe, list all of the ingredients. | list ingredient
Given a list of numbers find the median | find median
Based on the table, answer the question. | answer question
Using the words below, form a sentence. | form sentence
In your own words, describe the author's main argument. | describe argument
For each animal, name its habitat. | name habitat
If the text is in French, translate it into English. | translate -
To the best of your knowledge, estimate the number of bees in a hive. | estimate number
From the options below, choose the best synonym. | choose synonym
As a doctor, explain the side effects of aspirin. | explain effect
Describe in detail the process of making cheese. | describe process
Explain to me the concept of inflation. | explain concept
Explain how a bicycle stays upright. | explain -
Explain what a black hole is. | explain -
Tell me a joke about computers. | tell joke
Tell me about your favourite book. | tell -
Give three reasons to learn a second language. | give reason
Give an example of a renewable energy source. | give example
Think of a word that rhymes with orange. | think -
Come up with a slogan for a gym. | come -
Fill in the blank with the correct preposition. | fill blank
Make the sentence shorter and clearer. | make sentence
Make a list of five things to pack for a hike. | make list
Compare and contrast the two characters. | compare character
Read the passage and identify the main theme. | read passage
Rewrite the sentence in the passive voice: The cat chased the mouse. | rewrite sentence
Re-write this headline to be neutral. | rewrite headline
Translate "good morning" into Japanese. | translate -
Convert 5 miles to kilometres. | convert mile
Solve the equation for x: 3x + 4 = 19. | solve equation
Calculate the area of a circle with radius 4. | calculate area
Find the largest of these numbers. | find -
List some of the most common spelling mistakes. | list mistake
List two ways companies can save water. | list way
List at least four countries in Africa. | list country
Name a famous scientist. | name scientist
Identify the errors in this code and fix them. | identify error
Generate a JSON object describing a car. | generate object
Create a machine learning model for spam. | create model
Draw a house using only keyboard symbols. | draw house
Imagine that you live on Mars. | imagine -
Discuss Hamlet. | discuss -
Analyse the poem's use of metaphor. | analyse use
Brainstorm! | brainstorm -
Yodel the national anthem. | yodel anthem
1. Underline the adjectives. | underline adjective
Question: Who wrote the first detective novel? | write novel
What is the capital of Portugal? | - -
What are the benefits of sleep? | - -
What's the difference between a crab and a lobster? | - -
Is a tomato a fruit? | - -
What does the word "ubiquitous" mean? | mean -
What causes thunder? | cause thunder
What should I wear to a job interview? | wear -
Which planet has the most moons? | have moon
Which book did she write first? | write book
Who invented the telephone? | invent telephone
How do I bake bread? | bake bread
How can I improve my handwriting? | improve handwriting
How many calories does a banana contain? | contain calorie
How is paper made? | make -
How to remove a coffee stain | remove stain
How has the climate changed since 1900? | change -
When did the war end? | end -
Why do cats purr? | purr -
In which year did the wall fall? | fall -
Does climate change affect birds? | affect bird
Do the following exercises. | do exercise
List of rivers in Asia | - -
The dog barked at the moon. | - -
Schreibe ein kurzes Gedicht. | - -
写一首关于秋天的诗。 | - -
"""
CASES = [
    (text, tuple(None if part == "-" else part for part in label.split()))
    for text, label in (line.rsplit(" | ", 1) for line in LABELLED.strip().splitlines())
]
REQUIRED = 0.93  # share of the labelled instructions with both verb and object right


def test_labelled_instructions() -> None:
    """At least 93% of the hand-labelled instructions get both their verb and their object."""
    wrong = [
        f"{text}: {root_verb_object(text)} instead of {label}"
        for text, label in CASES
        if root_verb_object(text) != label
    ]
    assert len(CASES) >= 90
    assert len(wrong) <= (1 - REQUIRED) * len(CASES), "\n".join(wrong)


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("boxes", "box"),
        ("stories", "story"),
        ("phrases", "phrase"),
        ("criteria", "criterion"),
        ("analyses", "analysis"),
        ("knives", "knife"),
        ("movies", "movie"),
        ("heroes", "hero"),
        ("news", "news"),
        ("class", "class"),
        ("people", "person"),
    ],
)
def test_objects_are_singular(plural: str, singular: str) -> None:
    """A plural object is counted with its singular; words in -s that are no plural stay."""
    assert root_verb_object(f"Describe the {plural}.") == ("describe", singular)


@pytest.mark.parametrize(
    ("form", "lemma"),
    [
        ("wrote", "write"),
        ("planning", "plan"),
        ("tidied", "tidied"),
        ("classified", "classify"),
        ("makes", "make"),
        ("agreeing", "agree"),
        ("dying", "die"),
    ],
)
def test_verb_forms_lead_to_their_lemma(form: str, lemma: str) -> None:
    """Regular and irregular forms of listed verbs give the lemma; other words stay as they are."""
    assert english().lemma(form) == lemma


def test_quotations_and_later_sentences_are_not_read() -> None:
    """A quoted instruction is text to work on, and the first sentence that asks decides."""
    assert root_verb_object('Translate "Write a poem" into German.') == ("translate", None)
    assert root_verb_object("Name a river. Then draw a map.") == ("name", "river")
    assert root_verb_object("Hello! It is late. Draw a map.") == ("draw", "map")


def test_adjectives_do_not_end_the_phrase() -> None:
    """Adjectives joined by commas or "and" belong to the noun that follows them."""
    assert root_verb_object("Write a short, funny and rhyming toast.") == ("write", "toast")
    assert root_verb_object("Name a fruit and a tree.") == ("name", "fruit")


@given(st.text(max_size=400))
def test_any_text_gives_words_or_none(text: str) -> None:
    """Any text is read without an error, and an object never comes without a verb."""
    verb, noun = root_verb_object(text)
    assert verb is not None or noun is None
    for word in (verb, noun):
        assert word is None or (word == word.lower() and word and " " not in word)


@given(st.lists(st.sampled_from([w for text, _ in CASES for w in text.split()]), max_size=30))
def test_any_order_of_words_is_read(words: list[str]) -> None:
    """Sentences put together from words of real ones are read without an error."""
    verb, noun = root_verb_object(" ".join(words))
    assert verb is not None or noun is None


@pytest.mark.parametrize("text", ["a" * 10**6, "Given " * 10**5, "write, " * 10**5, '"' * 10**5])
def test_long_texts_take_no_time(text: str) -> None:
    """A megabyte of one word is read in well under a second: only its beginning counts."""
    start = time.perf_counter()
    root_verb_object(text)
    assert time.perf_counter() - start < 1
